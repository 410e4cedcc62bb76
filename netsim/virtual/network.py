"""The virtual network: any number of nodes in memory, one seed, one clock, and every fault by name.

    net = VirtualNetwork(seed, trace)
    await nursery.start(net.run)
    network = net.attach(peer_id, name="n1")     # what `app.run` takes in place of libp2p

Nothing here needs libp2p, threads or real time. Faults are plain calls that take effect now; `links.py` has most of
them. See `scheduler.run_virtual` for the clock and the order of tasks.
"""

from netsim.virtual.endpoint import VirtualEndpoint
from netsim.virtual.links import Link, Links
from netsim.virtual.trace import Trace


class VirtualNetwork(Links):
    """One for each run. Its own task, `run`, must be started before the first node's network."""

    def __init__(self, seed: int, trace: Trace, *, link: Link | None = None) -> None:
        super().__init__(seed, trace, link=link)
        self._numbers: dict[str, int] = {}
        self._endpoints: dict[int, VirtualEndpoint] = {}

    def attach(self, peer_id: str, *, name: str | None = None) -> VirtualEndpoint:
        """The network of a node's next process. Its address and its name stay the same in all of them.

        `name` is what the trace calls the node: n1, n2, ... in the order of attaching where none is given.
        """
        number = self._numbers.setdefault(peer_id, len(self._numbers) + 1)
        former = self._endpoints.get(number)
        assert former is None or not former.is_running, f"{self.name_of(peer_id)} still runs; crash or stop it first"
        name = name or self._names.get(peer_id, f"n{number}")
        assert self._names.get(peer_id, name) == name, f"{peer_id} is called {self.name_of(peer_id)} already"
        assert all(peer == peer_id for peer, taken in self._names.items() if taken == name), (
            f"there is a {name} already"
        )
        self._names[peer_id] = name
        self._endpoints[number] = endpoint = VirtualEndpoint(self, peer_id, number, self._endpoints)
        return endpoint

    def is_known(self, peer_id: str) -> bool:
        """Whether this node has an address here: whether it was ever attached."""
        return peer_id in self._numbers

    def address_of(self, peer_id: str) -> str:
        """Where a node can be dialled, while it runs."""
        return self._endpoints[self._numbers[peer_id]].address

    def crash(self, peer_id: str) -> None:
        """The process is gone, at once; each peer's kernel learns of it when a message can reach it.

        The caller cancels the node's tasks without an await in between: they can send nothing any more. A frozen node
        that is killed is no longer frozen.
        """
        self._frozen.pop(peer_id, None)
        self._endpoints[self._numbers[peer_id]].stop("crashed")
        self._release()
