"""`./scripts/demo`: the demonstration with 2 replicas, then with a replica at every node; 0 only if all checks hold."""

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from netsim.demo.demonstration import Demonstration
from netsim.demo.record import DemonstrationRecord
from netsim.processes.interrupts import Interrupted, Interrupts
from netsim.processes.node import BZZZ, NodeProcessFailed
from netsim.processes.screen import JsonScreen, Screen, TextScreen
from netsim.processes.swarm import Swarm

CALLS_AT_ONCE = 5


def main() -> int:
    arguments = _arguments()
    screen: Screen = JsonScreen() if arguments.json else TextScreen()
    interrupts = Interrupts()
    interrupts.listen()
    start = time.monotonic()
    records: list[DemonstrationRecord] = []
    interrupted: Interrupted | None = None
    try:
        screen.chapter("BZZZ: five nodes on this machine, each a process of its own, in one real swarm")
        for replication in arguments.replication:
            is_last = replication == arguments.replication[-1]
            _run(replication, arguments, screen, interrupts, records, keep=arguments.keep and is_last)
    except Interrupted as error:
        interrupts.ignore()
        interrupted = error
    _summarize(screen, records, len(arguments.replication), time.monotonic() - start, interrupted)
    if interrupted is not None:
        return 128 + interrupted.number
    return 0 if len(records) == len(arguments.replication) and all(record.holds for record in records) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument(
        "--json", action="store_true", help="JSON lines instead of text; the last one is a summary object"
    )
    parser.add_argument("--keep", action="store_true", help="leave the last swarm running, and say how to talk to it")
    parser.add_argument("--writes", type=int, default=200, help="how many envelopes to write first (default: 200)")
    parser.add_argument(
        "--replication",
        type=int,
        action="append",
        help="BZZZ_REPLICATION of the swarm; repeatable (default: 2, then 20)",
    )
    arguments = parser.parse_args()
    arguments.replication = arguments.replication or [2, 20]
    if arguments.writes < 5:
        parser.error("--writes: at least 5, one for each node")
    if min(arguments.replication) < 2:
        parser.error("--replication: at least 2; with fewer a frozen node may hold the only copy")
    return arguments


def _run(
    replication: int,
    arguments: argparse.Namespace,
    screen: Screen,
    interrupts: Interrupts,
    records: list[DemonstrationRecord],
    *,
    keep: bool,
) -> None:
    """One swarm from its start to its end; nothing of it is left, except with `keep`."""
    holders = f"the {replication} nodes nearest to its key" if replication < 4 else "all other nodes"
    screen.chapter(f"BZZZ_REPLICATION={replication}: a write is replicated to {holders}", replication=replication)
    record = DemonstrationRecord(screen, replication=replication)
    records.append(record)
    executor = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="demo")
    swarm: Swarm | None = None
    is_kept = False
    try:
        with interrupts.held():
            swarm = Swarm(replication=replication, interrupts=interrupts)
        demonstration = Demonstration(swarm, screen, executor, record, replication=replication, writes=arguments.writes)
        demonstration.play()
        if keep:
            is_kept = True
        else:
            demonstration.end()
    except NodeProcessFailed as error:
        record.fail(str(error))
    except Interrupted:
        record.fail("interrupted: ending the nodes")
        raise
    finally:
        # A second Ctrl-C waits until nothing is left.
        with interrupts.held():
            executor.shutdown(wait=False, cancel_futures=True)
            if swarm is not None and not is_kept:
                swarm.end()
                swarm.remove()
    if swarm is not None and is_kept:
        _introduce(swarm, screen)


def _introduce(swarm: Swarm, screen: Screen) -> None:
    bzzz = os.path.relpath(BZZZ)
    first, *_, last = swarm.nodes
    address = "'ucxl://you:author@bzzz:hello/*^/note.txt'"
    pids = " ".join(str(node.pid) for node in swarm.nodes)
    screen.chapter("The five nodes are still running.")
    screen.note(
        f"Talk to them:\n"
        f"  echo hello | {bzzz} put {address} - --api {first.api}\n"
        f"  {bzzz} get {address} --api {last.api}\n"
        f"  {bzzz} peers --api {first.api}\n"
        f"  kill -STOP {first.pid}     (freeze {first.name}; kill -CONT thaws it)\n"
        f"End them and remove their data:\n"
        f"  kill {pids}; rm -r {swarm.folder}",
        nodes=[{"name": node.name, "api": node.api, "pid": node.pid} for node in swarm.nodes],
        folder=str(swarm.folder),
    )


def _summarize(
    screen: Screen, records: list[DemonstrationRecord], wanted: int, seconds: float, interrupted: Interrupted | None
) -> None:
    acknowledged = sum(record.acknowledged for record in records)
    lost = sum(record.lost for record in records)
    holds = len(records) == wanted and all(record.holds for record in records) and interrupted is None
    if interrupted is not None:
        words = f"interrupted ({interrupted}) after {seconds:.0f} s; nothing was left behind"
    else:
        words = f"{lost} of {acknowledged} acknowledged writes lost\n"
        words += f"{'Every check held' if holds else 'NOT every check held'}, in {seconds:.0f} s."
    screen.summary(
        words, ok=holds, interrupted=interrupted is not None, acknowledged=acknowledged, lost=lost,
        seconds=round(seconds, 1), runs=[record.facts() for record in records],
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
