"""Sighting filter: which addresses of a sighting are taken. The others are dropped, and counted for their reporter."""

from collections.abc import Callable
from dataclasses import replace

from node.services.membership.this_node import ThisNode
from node.swarm.base import Network
from node.swarm.limit_counters import LimitCounters
from protocols.policy.address_scope import Scope, scope_of
from protocols.policy.peer_addresses import ADDRESSES_MAX
from protocols.policy.sighting import Sighting, Source

_MAY_NAME_ITSELF = frozenset({Source.CONFIGURATION, Source.STORE, Source.API, Source.MDNS})
"""Sources that judge themselves whether an address that leads only this machine to itself may be reported."""
_MAY_NAME_A_LINK = frozenset({Source.CONFIGURATION, Source.STORE, Source.MDNS})
"""Sources that know this machine's interfaces."""


class SightingFilter:
    """`address_of` gives the address at the other end of the connection to a peer, '' without one."""

    def __init__(
        self, network: Network, this_node: ThisNode, limit_counters: LimitCounters, address_of: Callable[[str], str]
    ) -> None:
        self._network = network
        self._this_node = this_node
        self._limit_counters = limit_counters
        self._address_of = address_of

    def cleaned(self, sighting: Sighting) -> Sighting | None:
        """The sighting with the addresses that may be dialled; None when it had some, and none may be, unless it is a
        hello."""
        faults = {a: fault for a in dict.fromkeys(sighting.addresses) if (fault := self._fault(a, sighting))}
        fit = tuple(address for address in dict.fromkeys(sighting.addresses) if address not in faults)
        if not sighting.is_configured and len(fit) > ADDRESSES_MAX:
            faults.update(dict.fromkeys(fit[ADDRESSES_MAX:], f"more than {ADDRESSES_MAX} addresses of one peer"))
            fit = fit[:ADDRESSES_MAX]
        if faults:
            address, fault = next(iter(faults.items()))
            who = sighting.reporter or (
                sighting.peer if sighting.source is Source.HELLO else f"source {sighting.source}"
            )
            what = f"address that is not dialled: {address:.200}: {fault:.300}"
            self._limit_counters.hit("addresses_refused", who, what, times=len(faults))
        says_something = fit or not sighting.addresses or sighting.source is Source.HELLO
        return replace(sighting.cleaned(), addresses=fit) if says_something else None

    def _fault(self, address: str, sighting: Sighting) -> str:
        """Why an address is not taken from this source, or ''."""
        if fault := self._network.address_fault(address):
            return fault
        scope, source = scope_of(address), sighting.source
        if source is not Source.CONFIGURATION and sighting.peer and not address.endswith(f"/p2p/{sighting.peer}"):
            return f"it does not name {sighting.peer}"
        if scope is Scope.NOWHERE:
            return "it leads nowhere"
        if scope is Scope.LINK and (source not in _MAY_NAME_A_LINK or "%" not in address):
            return "it needs the name of an interface of this machine"
        if scope is Scope.LOOPBACK and source not in _MAY_NAME_ITSELF:
            teller = sighting.reporter or sighting.peer
            if not self._this_node.is_here(self._address_of(teller)):
                return "it leads each machine to itself, and comes from another one"
        return ""
