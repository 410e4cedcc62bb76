"""Peer faults: which nodes should be connected and are not, and what is said of each."""

from dataclasses import replace
from math import inf

import pytest

from protocols.policy.peer_events import MissingPeer
from protocols.policy.peer_faults import APART_SECONDS, apart, unreached
from protocols.policy.peer_target import VOUCHED_SECONDS

UNKNOWN = MissingPeer(
    peer="12D3KooWabcdefgh", name="", configured="", vouched_since=inf, vouchers=(), has_spoken=False, why=""
)
SAID = (("bob", APART_SECONDS - 1.0), ("eve", APART_SECONDS))
VOUCHED = replace(UNKNOWN, name="ada", vouched_since=0.0, vouchers=SAID, why="refused")
MEMBERS = {"bob": "Bob", "eve": "Eve", "max": "Max"}


@pytest.mark.parametrize(
    ("peer", "now", "says"),
    [
        (UNKNOWN, 0.0, ()),
        (VOUCHED, APART_SECONDS, ("ada (refused)",)),
        (replace(VOUCHED, name="", why=""), APART_SECONDS, ("abcdefgh (it is not reached)",)),
        (replace(VOUCHED, vouched_since=0.1), APART_SECONDS, ()),
        (VOUCHED, APART_SECONDS + VOUCHED_SECONDS - 1.0, ("ada (refused)",)),
        (VOUCHED, APART_SECONDS + VOUCHED_SECONDS, ()),
    ],
)
def test_a_node_that_others_have_been_connected_with_for_a_while_is_named(
    peer: MissingPeer, now: float, says: tuple[str, ...]
) -> None:
    believed, _ = apart([peer], MEMBERS, now)
    assert believed == says


@pytest.mark.parametrize(
    ("members", "has_spoken", "believed", "doubted"),
    [
        (("bob", "eve"), False, ("ada (refused)",), ()),
        (("eve",), True, ("ada (Eve alone says so; refused)",), ()),
        (("eve",), False, (), ("ada (Eve alone says so; refused)",)),
        (("eve", "max"), True, (), ("ada (Eve alone says so; refused)",)),
        (("max",), True, (), ()),
        ((), True, (), ()),
    ],
)
def test_the_word_of_one_member_counts_when_it_is_the_only_one_and_the_node_has_spoken_for_itself(
    members: tuple[str, ...], has_spoken: bool, believed: tuple[str, ...], doubted: tuple[str, ...]
) -> None:
    here = {name: MEMBERS[name] for name in members}
    assert apart([replace(VOUCHED, has_spoken=has_spoken)], here, APART_SECONDS) == (believed, doubted)


def test_a_bootstrap_node_is_named_with_why_it_is_not_reached() -> None:
    tried = replace(UNKNOWN, configured="/dns4/a.example/tcp/1", why="/dns4/a.example/tcp/1: no such name")
    assert unreached([tried]) == ("the bootstrap node /dns4/a.example/tcp/1: no such name",)
    assert unreached([replace(tried, why="it is this node itself")]) == (
        "the bootstrap node /dns4/a.example/tcp/1: it is this node itself",
    )
    assert unreached([VOUCHED, replace(tried, why="")]) == ()
