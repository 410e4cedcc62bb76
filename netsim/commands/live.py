"""`bzzz sim live`: plays five real processes under signals, partitions and flips, and checks every promise."""

from pathlib import Path

import click

from netsim.commands.arguments import refuse_unwritable, write_text

SECONDS_MIN = 10


@click.command("live")
@click.argument("scenario", nargs=-1, metavar="")  # accepted only to refuse it in plain words
@click.option(
    "--seconds", type=click.IntRange(SECONDS_MIN, 3600), default=60, show_default=True, help="How long faults come."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws faults and calls.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines; the last one is a summary object.")
@click.option("--keep", is_flag=True, help="Leave the nodes running at the end, and show how to use them.")
@click.option("--history", type=click.Path(dir_okay=False, path_type=Path), help="Write the history, as JSON lines.")
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

    Nodes are paused (SIGSTOP), killed (SIGKILL) and started again, and parted by their deny lists; every second some
    nodes are flipped to another backend. Four writers and five readers call them all the while. Then everything is
    healed, and must settle. The exit code is 1 if a check was broken. The seed draws which node gets which fault and
    when; the rest depends on the machine.
    """
    from netsim.history_file import history_lines
    from netsim.processes.run import ProcessRun
    from netsim.processes.screen import JsonScreen, TextScreen

    if scenario:
        raise click.UsageError(
            f"{scenario[0]} is not played live: a live run takes no scenario, and draws faults that real processes can "
            f"have by --seed; 'bzzz sim run {scenario[0]}' plays it in the virtual world"
        )
    refuse_unwritable(history)
    live = ProcessRun(seconds=seconds, seed=seed, screen=JsonScreen() if as_json else TextScreen(), keep=keep)
    code = live.play()
    if history is not None:
        write_text(history, "".join(f"{line}\n" for line in history_lines(live.history)))
    ctx.exit(code)
