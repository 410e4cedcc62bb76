"""Every attack on a real node in a process of its own: no honest client notices, and the node releases all resources.

The attacks, and what is checked during and after each, are in `scripts/attacks/`; `scripts/attack` runs them on any
node of this machine.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from attacks import on_histories
from attacks.attack_run import name_of, run_attack
from attacks.catalogue import ATTACKS
from attacks.http_client import get
from attacks.on_topics import TOPIC
from attacks.target import find
from netsim.processes.interrupts import Interrupts
from netsim.processes.node import NodeProcess
from tests.live import measured_node, topic_listening_node

pytestmark = pytest.mark.deadline(300)
"""An attack has its own limit, 30 seconds on an idle machine and longer in proportion to the load."""
CHEAP = ("connects-and-disconnects", "resets-in-the-middle", "members-who-come-and-go")
FEW_DESCRIPTORS = 160
TAKE_DESCRIPTORS = ("idle-connections", "half-open-connections", "idle-clients", "half-requests", "mute-peers")
ROUNDS = 4
HISTORIES = tuple(name_of(attack) for attack in on_histories.ATTACKS)
HOLD_MS_MAX = 50.0
"""Nothing holds the loop or a thread of the store for more than 20 ms of processor time on an idle machine. Beside
other programs all takes twice as long; what grows with a history takes ten times as long, or a hundred."""
GROWTH_MAX = 1.1
"""The growth of memory from the second round to the last, as a factor."""
TOPICS = {
    "every-protocol": ("offences",),
    "garbage-on-topics": ("gossip_refused", "connections_forfeited"),
    "messages-without-end": ("gossip_slowed",),
    "control-without-end": ("gossip_topics",),
    "mute-listeners": ("gossip_dropped",),
}
"""Attacks that concern GossipSub, and the limits that a node with a topic must have counted afterwards."""


class SubscribedProcess(NodeProcess):
    """A node that is subscribed to a topic."""

    def _command(self, bootstrap: Sequence[str]) -> list[str]:
        return [topic_listening_node.__name__ if part == "node.cli" else part for part in super()._command(bootstrap)]


class MeasuredProcess(NodeProcess):
    """A node that notes what holds its loop and the threads of its store."""

    def _command(self, bootstrap: Sequence[str]) -> list[str]:
        return [measured_node.__name__ if part == "node.cli" else part for part in super()._command(bootstrap)]

    def holds(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in (self._folder / measured_node.HOLDS).read_text("utf-8").splitlines()]


class FewDescriptorsProcess(NodeProcess):
    """A node that may open so few files and sockets that idle connections take all that others leave."""

    def _command(self, bootstrap: Sequence[str]) -> list[str]:
        return ["sh", "-c", f'ulimit -n {FEW_DESCRIPTORS} && exec "$@"', "sh", *super()._command(bootstrap)]


class Victim:
    """A node that is started again when an attack has ended it, so that each attack is judged by itself."""

    def __init__(self, folder: Path, kind: type[NodeProcess] = NodeProcess) -> None:
        self._folder = folder
        self._kind = kind
        self._lives = 0
        self._node: NodeProcess | None = None

    def api(self) -> str:
        if self._node is None or not _is_alive(self._node.pid):
            self._lives += 1
            folder = self._folder / str(self._lives)
            self._node = self._kind("victim", folder, replication=20, interrupts=Interrupts())
            self._node.start(())
            self._node.wait_ready()
        return self._node.api

    @property
    def node(self) -> NodeProcess:
        assert self._node is not None
        return self._node

    def log(self) -> str:
        assert self._node is not None
        return self._node.log.read_text(encoding="utf-8", errors="replace")

    def end(self) -> None:
        if self._node is not None:
            self._node.kill()
            self._node.wait_ended(0.0)


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    victim = Victim(tmp_path_factory.mktemp("victim"))
    yield victim
    victim.end()


@pytest.fixture(scope="module")
def subscriber(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    victim = Victim(tmp_path_factory.mktemp("subscriber"), SubscribedProcess)
    yield victim
    victim.end()


@pytest.fixture(scope="module")
def poor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    victim = Victim(tmp_path_factory.mktemp("poor"), FewDescriptorsProcess)
    yield victim
    victim.end()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    victim = Victim(tmp_path_factory.mktemp("measured"), MeasuredProcess)
    yield victim
    victim.end()


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in HISTORIES])
async def test_no_honest_client_notices(victim: Victim, name: str) -> None:
    outcome = await run_attack(ATTACKS[name], await find(victim.api()))
    assert not outcome.fell, outcome
    assert "Traceback" not in victim.log()


@pytest.mark.parametrize("name", HISTORIES)
async def test_a_long_history_holds_nothing_for_long(measured: Victim, name: str) -> None:
    target = await find(measured.api())
    node = measured.node
    assert isinstance(node, MeasuredProcess)
    earlier = len(node.holds())
    outcome = await run_attack(ATTACKS[name], target)
    assert not outcome.fell, outcome
    assert "Traceback" not in measured.log()
    assert [hold for hold in node.holds()[earlier:] if float(str(hold["ms"])) > HOLD_MS_MAX] == []


@pytest.mark.parametrize("name", TAKE_DESCRIPTORS)
async def test_no_honest_client_notices_on_a_node_with_few_descriptors(poor: Victim, name: str) -> None:
    outcome = await run_attack(ATTACKS[name], await find(poor.api()))
    assert not outcome.fell, outcome
    assert "Traceback" not in poor.log()


def test_the_attacks_use_the_topic_of_the_node() -> None:
    assert topic_listening_node.TOPIC == TOPIC


@pytest.mark.parametrize("name", TOPICS)
async def test_no_honest_client_notices_on_a_node_with_a_topic(subscriber: Victim, name: str) -> None:
    target = await find(subscriber.api())
    outcome = await run_attack(ATTACKS[name], target)
    assert target.api is not None
    assert not outcome.fell, outcome
    assert "Traceback" not in subscriber.log()
    _, body = await get(target.api, "/metrics", seconds=20)
    for kind in TOPICS[name]:
        assert f'bzzz_swarm_limits_total{{kind="{kind}"}} 0.0'.encode() not in body, "it is subscribed, and refuses"


async def test_round_after_round_takes_no_more_memory(victim: Victim) -> None:
    target = await find(victim.api())
    levels = []
    for _ in range(ROUNDS):
        outcomes = [await run_attack(ATTACKS[name], target) for name in CHEAP]
        assert not [outcome.fell for outcome in outcomes if outcome.fell]
        levels.append(outcomes[-1].memory_bytes)
    assert levels[-1] < GROWTH_MAX * levels[1], levels
