"""The command behind `scripts/bench`: run the named benches, or all of them, and print the figures."""

import argparse
import importlib
import signal
import sys
from pathlib import Path
from types import FrameType

from benchmarks.figures import Figure, as_json, as_table, machine
from benchmarks.plots import draw

BENCHES = (
    "machine", "backends", "metrics", "store", "puts", "histories", "processes", "swarm", "http", "connections",
    "recovery", "discovery", "kademlia", "large_swarm", "killed", "js_libp2p",
)  # fmt: skip


def end(number: int, _frame: FrameType | None) -> None:
    """A bench that is asked to end unwinds as after Ctrl-C, and so ends its processes and removes its folders."""
    sys.exit(128 + number)


def main() -> int:
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, end)
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measure what the project promises of its speed."
    )
    parser.add_argument("benches", nargs="*", metavar="BENCH", help=f"which ones: {', '.join(BENCHES)} (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the figures into PNG files there, too")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FOLDER",
        help="the benches puts and http: this in turns with another checkout",
    )
    options = parser.parse_args()
    unknown = [name for name in options.benches if name not in BENCHES]
    if unknown:
        parser.error(f"there is no bench {unknown[0]!r}; there are {', '.join(BENCHES)}")
    figures: list[Figure] = []
    for name in options.benches or BENCHES:
        print(f"bench {name} ...", file=sys.stderr, flush=True)
        bench = importlib.import_module(f"benchmarks.{name}")
        figures.extend(bench.run(options.against) if name in ("puts", "http") else bench.run())
    print(as_json(figures) if options.json else f"{machine()}\n\n{as_table(figures)}")
    if options.plots is not None:
        for path in draw(figures, options.plots):
            print(f"drawn: {path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
