"""The inspection of real nodes over their HTTP APIs: what they hold, and whether all has settled. Blocking calls."""

from collections.abc import Sequence
from typing import Any

from netsim.history import FinalState, ShownVersion
from netsim.processes.node import NodeProcess
from netsim.processes.workload_client import NoAnswer, WorkloadClient
from netsim.scenario.model import Scenario
from netsim.workload import key_names


class ProcessInspection:
    """Over the nodes of one world. `client` is the one that makes the calls: it knows what was acknowledged."""

    def __init__(self, scenario: Scenario, nodes: Sequence[NodeProcess], client: WorkloadClient) -> None:
        self._scenario = scenario
        self._nodes = nodes
        self._client = client
        self._keys = key_names(scenario.workload.keys)

    def in_force(self, node: NodeProcess) -> str:
        """The backend in force at a node. Raises `NoAnswer`."""
        return str(self._get(node, "/v1/flags")["in_force"])

    def final_state(self, node: NodeProcess, at: float) -> FinalState:
        """Raises `NoAnswer`."""
        api = node.client
        heads: dict[str, tuple[str, ...]] = {}
        versions: dict[str, tuple[ShownVersion, ...]] = {}
        reissued: dict[str, str] = {}
        for key in self._keys:
            found, heads_of, reissued_of = self._client.versions(api, key)
            if found:
                versions[key], heads[key] = found, heads_of
            reissued |= reissued_of
        hints, flags = self._get(node, "/v1/pending"), self._get(node, "/v1/flags")
        return FinalState(
            at=at,
            node=node.name,
            backend=flags["in_force"],
            heads=heads,
            versions=versions,
            reissued=reissued,
            hints=hints["count"],
            quarantined=hints["refused"],
            breaker=flags["breaker"]["state"],
        )

    def unsettled(self) -> str:
        """What has not settled yet, in words, or ''."""
        try:
            return next(filter(None, map(self._unsettled_at, self._nodes)), "") or self._unequal()
        except NoAnswer as error:
            return str(error)

    def _unsettled_at(self, node: NodeProcess) -> str:
        hints, flags = self._get(node, "/v1/pending"), self._get(node, "/v1/flags")
        if hints["count"] or hints["refused"]:
            return f"{node.name} has {hints['count']} hints left, and {hints['refused']} in quarantine"
        if flags["in_force"] != self._scenario.backend_of(node.name):
            return f"{node.name} still answers on {flags['in_force']}"
        if flags["breaker"]["state"] != "closed":
            return f"the breaker of {node.name} is {flags['breaker']['state']} ({flags['breaker']['why']})"
        peers = self._get(node, "/v1/peers")["peers"]
        reached = {peer["peer_id"] for peer in peers if peer["connected"] and not peer["suspect"]}
        missed = [other.name for other in self._nodes if other.peer_id not in reached and other is not node]
        return f"{node.name} does not reach {', '.join(missed)}" if missed else ""

    def _unequal(self) -> str:
        """Two nodes that do not hold the same acknowledged versions, in words, or ''. Heads are not compared: they may
        differ by versions that were not acknowledged (`RunParameters.spreads_all`). That no hints are left proves
        nothing: a write that was under way when a member returned gets its hint some seconds later."""
        first, *others = self._nodes
        for key in self._keys:
            held = self._client.acknowledged(first.client, key)
            for node in others:
                if self._client.acknowledged(node.client, key) != held:
                    return f"{first.name} and {node.name} hold different versions of {key}"
        return ""

    def _get(self, node: NodeProcess, path: str) -> dict[str, Any]:
        reply = node.client.call("GET", path)
        if reply.status != 200:
            raise NoAnswer(f"{node.name} does not answer {path}: {reply}")
        return reply.data
