"""The virtual world's net: any number of nodes in memory, one seed, one clock, and every fault by name.

    net = VirtualNet(seed, trace)
    await nursery.start(net.run)
    network = net.attach(peer_id, name="n1")     # what `app.run` takes in place of libp2p

Nothing here knows of libp2p, threads or real time. Faults are plain calls that take effect now (`links.py` has most of
them); `at` puts one down for later. See `schedule.run_virtual` for the clock and the order of tasks.
"""

from collections.abc import Callable
from typing import TypeVarTuple

from netsim.virtual.endpoint import VirtualEndpoint
from netsim.virtual.links import Link, Links
from netsim.virtual.trace import Trace

Args = TypeVarTuple("Args")


class VirtualNetwork(Links):
    """One for each run. Its own task, `run`, must be started before the first node's network."""

    def __init__(self, seed: int, trace: Trace, *, link: Link | None = None) -> None:
        super().__init__(seed, trace, link=link)
        self._numbers: dict[str, int] = {}
        self._residents: dict[int, VirtualEndpoint] = {}

    def attach(self, peer_id: str, *, name: str | None = None) -> VirtualEndpoint:
        """The network of a node's next life. Its address and its name stay the same in all of them.

        `name` is what the trace calls it: n1, n2, ... in the order of coming, unless told otherwise.
        """
        number = self._numbers.setdefault(peer_id, len(self._numbers) + 1)
        former = self._residents.get(number)
        assert former is None or not former.is_running, f"{self.name_of(peer_id)} still runs; crash or stop it first"
        name = name or self._names.get(peer_id, f"n{number}")
        assert self._names.get(peer_id, name) == name, f"{peer_id} is called {self.name_of(peer_id)} already"
        assert all(peer == peer_id for peer, taken in self._names.items() if taken == name), (
            f"there is a {name} already"
        )
        self._names[peer_id] = name
        self._residents[number] = endpoint = VirtualEndpoint(self, peer_id, number, self._residents)
        return endpoint

    def is_known(self, peer_id: str) -> bool:
        """Whether this node has an address here: whether it ever came."""
        return peer_id in self._numbers

    def address_of(self, peer_id: str) -> str:
        """Where a node can be dialled, while it runs."""
        return self._residents[self._numbers[peer_id]].address

    def crash(self, peer_id: str) -> None:
        """The process is gone, at once; each peer's kernel hears of it when a message can reach it.

        The caller cancels the node's tasks in the same breath: they can send nothing any more. A frozen node that is
        killed is no longer frozen.
        """
        self._frozen.pop(peer_id, None)
        self._residents[self._numbers[peer_id]].stop("crashed")
        self._release()

    def at(self, time: float, happen: Callable[[*Args], None], *args: *Args) -> None:
        """Let something happen at a time on the virtual clock: `net.at(4.2, net.freeze, peer)`."""
        self.agenda.at(time, happen, *args)
