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
        """The number in the address of each node; 0 while it has none."""
        self._last_number = 0
        self._endpoints: dict[int, VirtualEndpoint | None] = {}
        """By the number in their addresses; None where there was one, and no machine is now."""
        self._by_peer: dict[str, VirtualEndpoint] = {}

    def attach(self, peer_id: str, *, name: str | None = None) -> VirtualEndpoint:
        """The network of a node's next process. Its address and its name stay the same in all of them, until it moves.

        `name` is what the trace calls the node: n1, n2, ... in the order of attaching where none is given.
        """
        if peer_id not in self._numbers:
            self._numbers[peer_id] = self._next_number()
        number, former = self._numbers[peer_id], self._by_peer.get(peer_id)
        assert former is None or not former.is_running, f"{self.name_of(peer_id)} still runs; crash or stop it first"
        name = name or self._names.get(peer_id, f"n{len(self._numbers)}")
        assert self._names.get(peer_id, name) == name, f"{peer_id} is called {self.name_of(peer_id)} already"
        assert all(peer == peer_id for peer, taken in self._names.items() if taken == name), (
            f"there is a {name} already"
        )
        self._names[peer_id] = name
        endpoint = self._by_peer[peer_id] = VirtualEndpoint(self, peer_id, number, self._endpoints)
        if number:
            self._endpoints[number] = endpoint
        return endpoint

    def unplug(self, peer_id: str) -> None:
        """A node's interface loses its address, or has none yet. Its connections are dead, and nobody is told."""
        self._place(peer_id, 0, keeps_connections=False)

    def plug(self, peer_id: str, *, keeps_connections: bool = False) -> None:
        """A node's interface gets an address that no node had before. `keeps_connections`: they go over another."""
        self._place(peer_id, self._next_number(), keeps_connections=keeps_connections)

    def _place(self, peer_id: str, number: int, *, keeps_connections: bool) -> None:
        if former := self._numbers.get(peer_id):
            self._endpoints[former] = None
        self._numbers[peer_id] = number
        self._note("address", peer_id, number)
        if (endpoint := self._by_peer.get(peer_id)) is not None:
            endpoint.move(number, keeps_connections=keeps_connections)
            if number:
                self._endpoints[number] = endpoint

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    def is_known(self, peer_id: str) -> bool:
        """Whether this node has an address here, and was ever attached."""
        return bool(self._numbers.get(peer_id)) and peer_id in self._by_peer

    def address_of(self, peer_id: str) -> str:
        """Where a node can be dialled, while it runs and has an address."""
        return self._by_peer[peer_id].address

    def crash(self, peer_id: str) -> None:
        """The process is gone, at once; each peer's kernel learns of it when a message can reach it.

        The caller cancels the node's tasks without an await in between: they can send nothing any more. A frozen node
        that is killed is no longer frozen.
        """
        self._frozen.pop(peer_id, None)
        self._by_peer[peer_id].stop("crashed")
        self._release()
