"""`bzzz sim live`: real processes under signals, partitions and turned flags; the exit code says whether it held."""

from pathlib import Path

import click

SECONDS_MIN = 10


@click.command("live")
@click.argument("scenario", nargs=-1, metavar="")  # none is taken; said in words
@click.option(
    "--seconds", type=click.IntRange(SECONDS_MIN, 3600), default=60, show_default=True, help="How long faults come."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws faults and calls.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines; the last one is a summary object.")
@click.option("--keep", is_flag=True, help="Leave the nodes running at the end, and say how to talk to them.")
@click.option("--history", type=click.Path(dir_okay=False, path_type=Path), help="Write what happened, as JSON lines.")
@click.pass_context
def live_command(
    ctx: click.Context,
    scenario: tuple[str, ...],
    seconds: int,
    seed: int,
    as_json: bool,
    keep: bool,
    history: Path | None,
) -> None:
    """Play five real nodes on this machine, and check every promise.

    They are frozen (SIGSTOP), killed (SIGKILL) and started again, parted by their deny lists, and every second some
    are turned between the backends, while four writers and five readers call them. Then all is healed, and must be
    well. The exit code is 1 if a check broke. The seed draws who suffers what and when; the rest is up to the machine.
    """
    from netsim.processes.run import ProcessRun
    from netsim.processes.screen import JsonScreen, TextScreen

    if scenario:
        raise click.UsageError(
            f"{scenario[0]} is not played live: a live run takes no scenario, and draws faults that real processes can "
            f"suffer by --seed; 'bzzz sim run {scenario[0]}' plays it in the virtual world"
        )
    if history is not None and not history.absolute().parent.is_dir():  # said now, and not after the run
        raise click.UsageError(f"{history} cannot be written: there is no directory {history.absolute().parent}")
    live = ProcessRun(seconds=seconds, seed=seed, screen=JsonScreen() if as_json else TextScreen(), keep=keep)
    code = live.play()
    if history is not None:
        try:
            history.write_text("".join(f"{line}\n" for line in live.history.lines()), "utf-8")
        except OSError as error:
            raise click.FileError(str(history), error.strerror) from None
    ctx.exit(code)
