"""`bzzz sim`: plays scenarios, and lists them. Reached by name from the table of commands in `node/cli.py`."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from netsim.commands.live import live_command

if TYPE_CHECKING:  # `bzzz --help` reads this file for its one line, and pays for nothing else
    from netsim.scenario.model import Scenario
    from netsim.seeds import Summary

STORIES_MAX = 5
"""Failed runs that are told in full; the others are named."""


@click.group("sim", short_help="Play a scenario, and check every promise.")
def sim_command() -> None:
    """Play a scenario in a virtual world, or five real processes, and check every promise."""


sim_command.add_command(live_command)


@sim_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON, a list of objects with name and about.")
def list_command(as_json: bool) -> None:
    """The scenarios that come with bzzz."""
    from netsim.scenario import toml

    scenarios = [_load(name) for name in toml.names()]
    if as_json:
        click.echo(json.dumps([{"name": one.name, "about": one.about} for one in scenarios], indent=2))
        return
    width = max(len(one.name) for one in scenarios)
    for one in scenarios:
        click.echo(f"{one.name:<{width}}  {one.about}")


@sim_command.command("run", short_help="Play one, for one seed or many.")
@click.argument("scenario")
@click.option(
    "--world", type=click.Choice(["virtual"]), default="virtual", help="Where: one seed, one clock, in memory."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The first seed.")
@click.option(
    "--runs", type=click.IntRange(1), default=1, show_default=True, help="How many seeds, one after the other."
)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes side by side.")
@click.option(
    "--trace", type=click.Path(dir_okay=False, path_type=Path), help="Write the first failed run's trace here."
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

    With one run, or none that failed, --trace and --history are of the last one.
    """
    from netsim.seeds import play_many

    for path in (trace, history):
        if path is not None and not path.absolute().parent.is_dir():  # said now, and not after an hour
            raise click.UsageError(f"{path} cannot be written: there is no directory {path.absolute().parent}")
    loaded = _load(scenario)
    progress = _Progress(runs, is_shown=not as_json and runs > 1)
    summaries: list[Summary] = []
    for summary in play_many(scenario, loaded, range(seed, seed + runs), jobs=jobs):
        summaries.append(summary)
        progress.clear()
        if as_json:
            click.echo(json.dumps(_row(summary)))
        elif summary.broken:
            number = sum(bool(one.broken) for one in summaries)
            click.echo(summary.story + "\n" if number <= STORIES_MAX else f"{summary.story.splitlines()[0]}\n")
        progress.show(summaries)
    progress.clear()
    _write(loaded, summaries, trace, history)
    failed = sum(bool(summary.broken) for summary in summaries)
    _say_expected(loaded, summaries, as_json)
    if as_json:
        click.echo(json.dumps({"runs": len(summaries), "failed": failed}))
    else:
        click.echo(f"{len(summaries)} runs, {failed} failed")
    ctx.exit(1 if failed else 0)


def _load(name: str) -> "Scenario":
    from netsim.scenario import toml
    from netsim.scenario.toml import ScenarioRefused

    try:
        return toml.load(name)
    except ScenarioRefused as error:
        raise click.UsageError(str(error)) from None


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


def _write(scenario: "Scenario", summaries: "list[Summary]", trace: Path | None, history: Path | None) -> None:
    """Play the run that matters once more: the same seed is the same run, and nothing had to be kept."""
    if trace is None and history is None:
        return
    from netsim.runner import play

    seed = next((summary.seed for summary in summaries if summary.broken), summaries[-1].seed)
    played = play(scenario, seed, with_trace=True)
    for path, text in ((trace, played.trace), (history, "".join(f"{line}\n" for line in played.history.lines()))):
        if path is not None:
            try:
                path.write_text(text, "utf-8")
            except OSError as error:
                raise click.FileError(str(path), error.strerror) from None


def _say_expected(scenario: "Scenario", summaries: "list[Summary]", as_json: bool) -> None:
    for check, reason in {}.items() if as_json else scenario.expected_to_fail.items():
        count = sum(check in summary.expected for summary in summaries)
        click.echo(f"expected to fail: {check}, and did in {count} of {len(summaries)} ({reason})")


class _Progress:
    """One line at the foot of a terminal; nothing where there is none."""

    def __init__(self, runs: int, *, is_shown: bool) -> None:
        self._runs = runs
        self._is_shown = is_shown and sys.stderr.isatty()
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
