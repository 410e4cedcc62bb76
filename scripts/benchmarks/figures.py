"""Figures: a measured value, its target, and how they are printed."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum


class Bound(StrEnum):
    AT_LEAST = "at least"
    AT_MOST = "at most"
    NONE = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured value. `target` is None where the project states none."""

    bench: str
    what: str
    value: float
    unit: str
    bound: Bound = Bound.NONE
    target: float | None = None

    @property
    def is_met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.bound is Bound.AT_LEAST else self.value <= self.target


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def as_table(figures: Sequence[Figure]) -> str:
    rows = [("bench", "what", "measured", "wanted", "")]
    for figure in figures:
        wanted = f"{figure.bound} {_number(figure.target)}" if figure.target is not None else ""
        verdict = {None: "", True: "met", False: "MISSED"}[figure.is_met]
        rows.append((figure.bench, figure.what, f"{_number(figure.value)} {figure.unit}", wanted, verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def as_json(figures: Sequence[Figure]) -> str:
    return json.dumps({"machine": machine(), "figures": [{**asdict(f), "is_met": f.is_met} for f in figures]}, indent=2)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
