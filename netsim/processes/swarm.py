"""A swarm of five real nodes in one folder, started and ended together: no process, port or file of it is left."""

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from netsim.processes.interrupts import Interrupts
from netsim.processes.machine_load import machine_load
from netsim.processes.node import END_SECONDS_MAX, NodeProcess, NodeProcessFailed

NAMES = ("ada", "bob", "cleo", "dan", "eve")
MEET_SECONDS_MAX = 60.0
KILL_SECONDS = 6.0
"""When a node that was asked to end is killed. This time, and `END_SECONDS_MAX`, are those of a quiet machine."""


class Swarm:
    """The nodes, in one temporary folder."""

    def __init__(
        self,
        *,
        replication: int,
        interrupts: Interrupts,
        names: Sequence[str] = NAMES,
        configuration: str = "",
        prefix: str = "bzzz-demo-",
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=prefix))
        self.nodes = tuple(
            NodeProcess(
                name, self.folder / name, replication=replication, interrupts=interrupts, configuration=configuration
            )
            for name in names
        )

    def start(self, progress: Callable[[int, int], None]) -> None:
        """Start the first node, then the others with its address; wait until each is connected to all others."""
        first, *others = self.nodes
        first.start(())
        first.wait_ready()
        for node in others:
            node.start(first.multiaddrs)
        for count, node in enumerate(others, start=2):
            progress(count - 1, len(self.nodes))
            node.wait_ready()
        progress(len(self.nodes), len(self.nodes))
        self.wait_connected()

    def wait_connected(self) -> None:
        """Wait until every node is connected to every other one; raises `NodeProcessFailed` after a minute."""
        wanted = len(self.nodes) - 1
        deadline = time.monotonic() + MEET_SECONDS_MAX
        while unconnected := [node.name for node in self.nodes if node.client.connected_peers() < wanted]:
            if time.monotonic() > deadline:
                raise NodeProcessFailed(
                    f"after {MEET_SECONDS_MAX:g} s {', '.join(unconnected)} had not found all {wanted} others"
                )
            time.sleep(0.05)

    def addresses_without(self, node: NodeProcess) -> list[str]:
        return [address for other in self.nodes if other is not node for address in other.multiaddrs]

    def end(self) -> list[str]:
        """End every node with SIGTERM. Returns what went wrong: a late end, an exit code, a port still taken."""
        start, load = time.monotonic(), machine_load()
        kill_seconds = KILL_SECONDS * load
        for node in self.nodes:
            node.ask_to_end()
        complaints = []
        for node in self.nodes:
            code = node.wait_ended(start + kill_seconds)
            took = time.monotonic() - start
            if code is None:
                complaints.append(f"{node.name} was still there after {kill_seconds:.1f} s and was killed")
            elif code != 0:
                complaints.append(f"{node.name} ended with exit code {code}")
            elif took > END_SECONDS_MAX * load:
                complaints.append(f"{node.name} took {took:.1f} s to end")
        complaints += [
            f"{node.name} left a port taken" for node in self.nodes if node.api and not node.ports_are_free()
        ]
        return complaints

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
