"""Peer target: what others say of a peer, and when it is missing."""

from protocols.policy.peer_target import VOUCHED_SECONDS, VOUCHERS_MAX, Target
from protocols.policy.sighting import Sighting, Source


def test_others_are_believed_as_long_as_they_repeat_it_and_this_node_is_not_connected() -> None:
    target = Target("a")
    assert target.missing() is None
    for at in (1.0, 9.0, 9.0 + VOUCHED_SECONDS):
        target.vouch("bob", at)
    assert (target.vouched_since, target.vouched_at) == (1.0, 9.0 + VOUCHED_SECONDS)
    target.vouch("eve", 10.0 + 2 * VOUCHED_SECONDS)
    assert target.vouched_since == target.vouched_at, "it was not said for long: that is another time"
    assert target.missing() is not None
    target.met(150.0)
    assert target.missing() is None
    target.vouch("bob", 200.0)
    assert target.vouched_at < 200.0


def test_each_member_is_remembered_once_with_what_it_said_last_and_few_of_them() -> None:
    target = Target("a")
    for at, member in enumerate(("bob", "eve", "bob")):
        target.vouch(member, float(at))
    missing = target.missing()
    assert missing is not None and missing.vouchers == (("eve", 1.0), ("bob", 2.0))
    for number in range(100):
        target.vouch(f"m{number}", 3.0)
    assert list(target.vouchers) == [f"m{number}" for number in range(100 - VOUCHERS_MAX, 100)]


def test_a_peer_is_a_claim_until_it_is_met_or_a_surer_source_names_it() -> None:
    target = Target("a")
    target.sources[Source.MDNS] = 1.0
    assert target.is_claim()
    target.sources[Source.STORE] = 2.0
    assert not target.is_claim()
    met = Target("b", sources={Source.MDNS: 1.0}, connected_at=2.0)
    assert not met.is_claim()


def test_what_a_peer_says_of_itself_is_not_replaced_by_the_word_of_others() -> None:
    target = Target("a", connected_at=1.0)
    target.describe(Sighting(peer="a", addresses=(), source=Source.HELLO, name="ada", agent="bzzz/1"))
    target.describe(Sighting(peer="a", addresses=(), source=Source.EXCHANGE, name="eve", reporter="b"))
    assert (target.name, target.agent) == ("ada", "bzzz/1")


def test_only_its_own_words_show_that_a_peer_was_not_made_up() -> None:
    for source in Source:
        target = Target("a", sources={source: 1.0})
        target.vouch("bob", 1.0)
        missing = target.missing()
        assert missing is not None
        assert missing.has_spoken == (source in (Source.HELLO, Source.STORE, Source.ANNOUNCE))
    target = Target("a", connected_at=1.0)
    target.vouch("bob", 2.0)
    missing = target.missing()
    assert missing is not None and missing.has_spoken
