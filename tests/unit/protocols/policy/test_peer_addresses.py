"""The addresses of one peer: which are kept, which are dropped, and which are not trusted."""

from protocols.policy.peer_addresses import ADDRESSES_MAX, DISTRUST_SECONDS, DISTRUSTED_MAX, PeerAddresses
from protocols.policy.sighting import Source


def known(*reports: tuple[Source, str]) -> PeerAddresses:
    addresses = PeerAddresses()
    for source, text in reports:
        addresses.learn((text,), source, 0.0)
    return addresses


def test_the_address_that_worked_comes_first_then_those_of_the_nearest_source() -> None:
    addresses = known((Source.EXCHANGE, "/said"), (Source.MDNS, "/lan"), (Source.HELLO, "/own"), (Source.DHT, "/dht"))
    addresses.worked("/dht", 1.0)
    assert addresses.texts() == ("/dht", "/own", "/lan", "/said")


def test_an_address_has_each_source_that_reported_it_with_the_last_time() -> None:
    addresses = known((Source.MDNS, "/a"))
    assert not addresses.learn(("/a",), Source.MDNS, 5.0), "it is no news"
    addresses.learn(("/a",), Source.EXCHANGE, 7.0)
    (address,) = addresses.all()
    assert address.sources == {Source.MDNS: 5.0, Source.EXCHANGE: 7.0}


def test_a_hello_replaces_what_the_peer_and_others_said_before() -> None:
    sources = (Source.CONFIGURATION, Source.HELLO, Source.STORE, Source.EXCHANGE, Source.DHT, Source.MDNS)
    addresses = known(*((source, f"/{source}") for source in sources))
    addresses.learn(("/new", "/store"), Source.HELLO, 1.0)
    addresses.replace(("/new", "/store"))
    assert set(addresses.texts()) == {"/configuration", "/new", "/store", "/mdns"}


def test_an_address_that_the_peer_left_is_dropped_even_if_it_worked() -> None:
    addresses = known((Source.HELLO, "/old"))
    addresses.worked("/old", 0.5)
    addresses.learn(("/new",), Source.HELLO, 1.0)
    addresses.replace(("/new",))
    assert addresses.texts() == ("/new",)


def test_an_address_that_works_though_the_peer_does_not_name_it_stays() -> None:
    """Behind a translator of addresses a peer does not know the address at which it is reached."""
    addresses = known((Source.EXCHANGE, "/outside"), (Source.EXCHANGE, "/other"))
    addresses.worked("/outside", 0.5)
    addresses.replace(())
    assert addresses.texts() == ("/outside",)


def test_an_address_at_which_another_peer_answered_is_not_trusted_again() -> None:
    addresses = known((Source.HELLO, "/a"), (Source.HELLO, "/b"))
    addresses.distrust("/a", 10.0)
    assert addresses.texts() == ("/b",)
    assert not addresses.learn(("/a",), Source.HELLO, 10.0 + DISTRUST_SECONDS - 1)
    assert addresses.texts() == ("/b",)
    assert addresses.learn(("/a",), Source.HELLO, 10.0 + DISTRUST_SECONDS), "a router may give it to this peer later"


def test_a_configured_address_is_kept_whichever_peer_answers_there() -> None:
    addresses = known((Source.CONFIGURATION, "/a"))
    addresses.distrust("/a", 0.0)
    assert addresses.texts() == ("/a",)


def test_distrust_takes_no_more_than_its_room() -> None:
    addresses = PeerAddresses()
    for number in range(2 * DISTRUSTED_MAX):
        addresses.distrust(f"/{number}", 0.0)
    assert len(addresses._distrusted) == DISTRUSTED_MAX  # private: its size shows nowhere else
    assert addresses.learn(("/0",), Source.HELLO, 1.0)
    assert not addresses.learn((f"/{2 * DISTRUSTED_MAX - 1}",), Source.HELLO, 1.0)


def test_many_addresses_of_a_far_source_do_not_drive_out_those_of_a_near_one() -> None:
    addresses = known((Source.HELLO, "/own"), (Source.CONFIGURATION, "/set"))
    for number in range(3 * ADDRESSES_MAX):
        addresses.learn((f"/{number}",), Source.EXCHANGE, 1.0)
    assert addresses.texts()[:2] == ("/set", "/own")
    assert len(addresses.texts()) == ADDRESSES_MAX + 1


def test_a_source_that_withdraws_takes_its_own_addresses_alone() -> None:
    addresses = known((Source.MDNS, "/a"), (Source.MDNS, "/b"), (Source.HELLO, "/b"))
    addresses.withdraw(Source.MDNS)
    assert addresses.texts() == ("/b",)
    assert not addresses.all()[0].is_configured
    addresses = known((Source.MDNS, "/a"), (Source.MDNS, "/b"))
    addresses.withdraw(Source.MDNS, but=("/a",))
    assert addresses.texts() == ("/a",)


def test_what_proved_to_be_the_peer_is_taken_with_its_sources() -> None:
    bare, found = known((Source.CONFIGURATION, "/a")), known((Source.HELLO, "/b"))
    found.take(bare)
    assert found.texts() == ("/a", "/b")
    assert found.configured() == ["/a"]
    found.drop_all_but_configured()
    assert found.texts() == ("/a",)
