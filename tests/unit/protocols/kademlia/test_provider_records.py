"""Provider records: how long each lasts, and which one gives way where there is no room."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from protocols.kademlia.contact import Contact
from protocols.kademlia.provider_records import ADDRESSES_MAX, EXPIRY_SECONDS, ProviderLimits, ProviderRecords

KEY, OTHER = b"key", b"other"


def records(**limits: Any) -> ProviderRecords:
    return ProviderRecords(expiry_seconds=100.0, limits=ProviderLimits(**limits))


def peers_of(table: ProviderRecords, key: bytes = KEY, now: float = 0.0, n: int = 20) -> list[str]:
    return [contact.peer for contact in table.providers(key, now, n)]


def test_providers_are_named_until_their_record_expires_the_latest_first() -> None:
    table = records()
    table.add(KEY, Contact("a", ("/a",)), 0.0)
    table.add(KEY, Contact("b"), 10.0)
    assert table.providers(KEY, 10.0, 20) == (Contact("b"), Contact("a", ("/a",)))
    assert peers_of(table, n=1) == ["b"]
    assert peers_of(table, now=100.0) == ["b"]
    assert peers_of(table, now=110.0) == []
    assert peers_of(table, OTHER) == []


def test_by_default_a_record_lasts_48_hours() -> None:
    table = ProviderRecords()
    table.add(KEY, Contact("a"), 0.0)
    assert peers_of(table, now=EXPIRY_SECONDS - 1.0) == ["a"]
    assert EXPIRY_SECONDS == 48 * 3600.0


def test_an_announcement_again_prolongs_the_record_with_its_new_addresses() -> None:
    table = records()
    table.add(KEY, Contact("a", ("/old",)), 0.0)
    table.add(KEY, Contact("a", ("/new",)), 90.0)
    assert len(table) == 1
    assert table.providers(KEY, 150.0, 20) == (Contact("a", ("/new",)),)


def test_expired_records_hold_no_memory() -> None:
    table = records()
    table.add(KEY, Contact("a"), 0.0)
    table.add(OTHER, Contact("a"), 0.0)
    table.add(KEY, Contact("b"), 50.0)
    assert peers_of(table, now=100.0) == ["b"]
    assert (len(table), table.dropped) == (1, {"expired": 2})


def test_the_records_of_a_banned_peer_are_dropped() -> None:
    table = records()
    for key, peer in ((KEY, "a"), (OTHER, "a"), (KEY, "b")):
        table.add(key, Contact(peer), 0.0)
    table.forget("a")
    table.forget("unknown")
    assert (len(table), peers_of(table), peers_of(table, OTHER)) == (1, ["b"], [])


def test_the_addresses_of_a_provider_are_bounded() -> None:
    table = records()
    table.add(KEY, Contact("a", tuple(f"/{number}" for number in range(100))), 0.0)
    assert len(table.providers(KEY, 0.0, 1)[0].addresses) == ADDRESSES_MAX


def test_of_a_peer_that_announces_too_many_keys_the_oldest_record_gives_way() -> None:
    table = records(per_peer=2)
    for key in (b"1", b"2", b"1", b"3"):
        assert table.add(key, Contact("a"), 0.0)
    assert [peers_of(table, key) for key in (b"1", b"2", b"3")] == [["a"], [], ["a"]]


def test_at_a_full_key_the_peer_with_the_most_records_gives_way_and_never_to_one_with_as_many() -> None:
    table = records(per_key=2)
    for key in (KEY, b"1", b"2"):
        table.add(key, Contact("greedy"), 0.0)
    table.add(KEY, Contact("modest"), 0.0)
    assert table.add(KEY, Contact("new"), 1.0)
    assert peers_of(table) == ["new", "modest"]
    assert not table.add(KEY, Contact("greedy"), 2.0)
    assert not table.add(KEY, Contact("newest"), 2.0)
    assert peers_of(table) == ["new", "modest"]
    assert table.add(KEY, Contact("newest"), 100.0), "the oldest record has expired"


def test_a_full_table_makes_room_at_the_cost_of_the_peer_with_the_most_records() -> None:
    table = records(in_all=4)
    for key in (b"1", b"2", b"3"):
        table.add(key, Contact("greedy"), 0.0)
    assert table.add(KEY, Contact("a"), 0.0)
    assert table.add(KEY, Contact("b"), 0.0)
    assert [peers_of(table, key) for key in (b"1", b"2", b"3")] == [[], ["greedy"], ["greedy"]]
    assert table.add(b"4", Contact("greedy"), 0.0), "it makes room for itself"
    assert [peers_of(table, key) for key in (b"1", b"2", b"3", b"4")] == [[], [], ["greedy"], ["greedy"]]
    assert table.add(b"4", Contact("c"), 0.0)
    assert not table.add(b"5", Contact("d"), 0.0), "all have one record"
    assert table.dropped == {"all": 3, "refused": 1}
    assert table.add(b"5", Contact("d"), 100.0)
    assert len(table) == 1


def test_of_many_providers_in_one_public_subnet_the_oldest_gives_way_and_each_subnet_has_its_turn() -> None:
    table = records(per_key_and_subnet=2)
    for number in range(4):
        table.add(KEY, Contact(f"many{number}", (f"/ip4/8.8.8.{number}/tcp/1",)), 0.0)
    assert peers_of(table) == ["many3", "many2"]
    assert table.add(KEY, Contact("other", ("/ip4/9.9.9.9/tcp/1",)), 0.0)
    for number in range(3):
        table.add(KEY, Contact(f"lan{number}", (f"/ip4/10.0.0.{number}/tcp/1",)), 0.0)
    assert peers_of(table) == ["lan2", "lan1", "lan0", "other", "many3", "many2"]
    table.add(KEY, Contact("many3", ("/ip4/8.8.8.3/tcp/1",)), 1.0)
    table.add(KEY, Contact("many2", ("/ip4/8.8.8.2/tcp/1",)), 2.0)
    assert peers_of(table, n=5) == ["many2", "lan2", "lan1", "lan0", "other"], "the second of a subnet comes last"


keys = st.sampled_from([b"1", b"2", b"3", b"4", b"5"])
steps = st.lists(st.tuples(st.floats(0, 30), keys, st.sampled_from("abcdefg")), max_size=80)


@given(steps)
def test_whatever_is_announced_the_limits_hold_and_those_that_were_refused_are_not_named(
    history: list[tuple[float, bytes, str]],
) -> None:
    table, now = records(per_peer=3, per_key=2, in_all=6), 0.0
    for passed, key, peer in history:
        now += passed
        is_in = table.add(key, Contact(peer), now)
        assert (peer in peers_of(table, key, now)) == is_in
        named = [(each, name) for each in (b"1", b"2", b"3", b"4", b"5") for name in peers_of(table, each, now)]
        assert len(named) <= len(table) <= 6
        for name in "abcdefg":
            assert sum(peer == name for _, peer in named) <= 3
        for each in (b"1", b"2", b"3", b"4", b"5"):
            assert len(peers_of(table, each, now)) <= 2
