"""Plots: one PNG for each bench and unit, with a bar for each figure."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import Figure


def draw(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """Draw the figures into a folder, which is made; return the files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    groups: dict[tuple[str, str], list[Figure]] = defaultdict(list)
    for figure in figures:
        groups[figure.bench, figure.unit].append(figure)
    written = []
    for (bench, unit), rows in sorted(groups.items()):
        picture, axes = pyplot.subplots(figsize=(10, 1.2 + 0.35 * len(rows)), layout="constrained")
        names = [figure.what.strip() for figure in rows]
        axes.barh(names, [figure.value for figure in rows], color="#4c72b0")
        for at, figure in enumerate(rows):
            if figure.target is not None:
                axes.plot([figure.target, figure.target], [at - 0.4, at + 0.4], color="#c44e52", linewidth=2)
        axes.invert_yaxis()
        axes.set_xlabel(f"{unit or 'count'} (red: what is wanted)")
        axes.set_title(bench)
        path = folder / f"{bench}-{(unit or 'count').strip('/').replace('%', 'percent')}.png"
        picture.savefig(path, dpi=110)
        pyplot.close(picture)
        written.append(path)
    return written
