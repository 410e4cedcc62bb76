"""`bzzz sim run`: plays one scenario in the virtual world, for one seed or many."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from netsim.commands.arguments import load_scenario, refuse_unwritable, write_text
from node.terminal import has_control

if TYPE_CHECKING:  # `bzzz --help` imports this file for its one line, and nothing that it needs
    from netsim.scenario.model import Scenario
    from netsim.seeds import Summary

REPORTS_MAX = 5
"""Failed runs whose whole report is shown. Of later ones only the first line is."""

JOBS_MAX = 256
"""All processes are started at once."""


@click.command("run", short_help="Play one scenario, for one seed or many.")
@click.argument("scenario")
@click.option(
    "--world", type=click.Choice(["virtual"]), default="virtual", help="Where: one seed, one clock, in memory."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The first seed.")
@click.option(
    "--runs", type=click.IntRange(1), default=1, show_default=True, help="How many seeds, one after the other."
)
@click.option("--jobs", type=click.IntRange(1, JOBS_MAX), default=1, show_default=True, help="Processes side by side.")
@click.option(
    "--trace", type=click.Path(dir_okay=False, path_type=Path), help="Write the trace of the first failed run here."
)
@click.option("--history", type=click.Path(dir_okay=False, path_type=Path), help="And its history, as JSON lines.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each run, then one for all.")
@click.pass_context
def run_command(
    ctx: click.Context,
    scenario: str,
    world: str,
    seed: int,
    runs: int,
    jobs: int,
    trace: Path | None,
    history: Path | None,
    as_json: bool,
) -> None:
    """Play SCENARIO, a name from `bzzz sim list` or a file, for one seed or many. The exit code is 1 if a check broke.

    If no run failed, or there is one run, --trace and --history are of the last run.
    """
    from netsim.seeds import play_many

    refuse_unwritable(trace, history)
    loaded = load_scenario(scenario)
    progress = _Progress(runs, is_shown=not as_json and runs > 1)
    summaries: list[Summary] = []
    for summary in play_many(scenario, loaded, range(seed, seed + runs), jobs=jobs):
        summaries.append(summary)
        progress.clear()
        if as_json:
            click.echo(json.dumps(_row(summary)))
        elif summary.broken:
            number = sum(bool(one.broken) for one in summaries)
            click.echo(summary.story + "\n" if number <= REPORTS_MAX else f"{summary.story.splitlines()[0]}\n")
        progress.show(summaries)
    progress.clear()
    _write_files(loaded, summaries, trace, history)
    failed = sum(bool(summary.broken) for summary in summaries)
    if as_json:
        click.echo(json.dumps({"runs": len(summaries), "failed": failed}))
    else:
        _show_expected(loaded, summaries)
        click.echo(f"{len(summaries)} runs, {failed} failed")
    ctx.exit(1 if failed else 0)


def _row(summary: "Summary") -> dict[str, object]:
    return {
        "seed": summary.seed,
        "broken": list(summary.broken),
        "expected": list(summary.expected),
        "calls": summary.calls,
        "virtual_seconds": round(summary.virtual_seconds, 3),
        "real_seconds": round(summary.real_seconds, 3),
        "story": summary.story,
    }


def _write_files(scenario: "Scenario", summaries: "list[Summary]", trace: Path | None, history: Path | None) -> None:
    """Play one run again for its files: the same seed is the same run, so `play_many` keeps no trace and no history."""
    if trace is None and history is None:
        return
    from netsim.history_file import history_lines
    from netsim.virtual.play import play

    seed = next((summary.seed for summary in summaries if summary.broken), summaries[-1].seed)
    result = play(scenario, seed, with_trace=True)
    if trace is not None:
        write_text(trace, result.trace)
    if history is not None:
        write_text(history, "".join(f"{line}\n" for line in history_lines(result.history)))


def _show_expected(scenario: "Scenario", summaries: "list[Summary]") -> None:
    for check, reason in scenario.expected_to_fail.items():
        count = sum(check in summary.expected for summary in summaries)
        click.echo(f"expected to fail: {check}, and did in {count} of {len(summaries)} ({reason})")


class _Progress:
    """One line at the bottom of a terminal; nothing where there is no terminal."""

    def __init__(self, runs: int, *, is_shown: bool) -> None:
        self._runs = runs
        self._is_shown = is_shown and has_control(sys.stderr)
        self._started = time.monotonic()

    def show(self, summaries: "list[Summary]") -> None:
        if self._is_shown:
            failed = sum(bool(summary.broken) for summary in summaries)
            spent = time.monotonic() - self._started
            left = spent / len(summaries) * (self._runs - len(summaries))
            speed = sum(summary.virtual_seconds for summary in summaries) / max(spent, 1e-9)
            line = f"{len(summaries)} of {self._runs}, {failed} failed, {speed:.0f} times real time, {left:.0f} s left"
            click.echo(f"\r\x1b[K{line}", nl=False, err=True)

    def clear(self) -> None:
        if self._is_shown:
            click.echo("\r\x1b[K", nl=False, err=True)
