"""Finding: one thing that was looked at, and what to do about it if it is wrong."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Worth to know; nothing is wrong."""
    BAD = "BAD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    subject: str
    level: Level
    text: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        return {"subject": self.subject, "level": self.level.value.lower(), "text": self.text, "advice": self.advice}


def ok(subject: str, text: str) -> Finding:
    return Finding(subject=subject, level=Level.OK, text=text)


def note(subject: str, text: str, advice: str = "") -> Finding:
    return Finding(subject=subject, level=Level.NOTE, text=text, advice=advice)


def bad(subject: str, text: str, advice: str = "") -> Finding:
    return Finding(subject=subject, level=Level.BAD, text=text, advice=advice)


def is_well(findings: Iterable[Finding]) -> bool:
    return all(finding.level is not Level.BAD for finding in findings)
