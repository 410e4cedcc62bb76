"""Sightings: what of a stranger's texts is taken."""

import pytest

from protocols.capabilities import CAPABILITIES_MAX
from protocols.policy.sighting import CAPABILITY_CHARS_MAX, Sighting, Source, is_agent


def sighting(**fields: object) -> Sighting:
    return Sighting(peer="a", addresses=(), source=Source.MDNS, **fields)  # type: ignore[arg-type]


def test_texts_that_may_be_shown_are_kept() -> None:
    given = sighting(name="n1", agent="bzzz/0.1.0 (linux)", capabilities=("model:llama3@70b", "label:gpu=a b"))
    assert given.cleaned() == given


@pytest.mark.parametrize("text", ["\x1b[31m", "a\nb", "a\u202eb", "x" * (CAPABILITY_CHARS_MAX + 1)])
def test_a_text_that_may_not_be_shown_is_left_out(text: str) -> None:
    assert not is_agent(text)
    cleaned = sighting(name=text, agent=text, capabilities=("ok", text)).cleaned()
    assert (cleaned.name, cleaned.agent, cleaned.capabilities) == ("", "", ("ok",))


def test_capabilities_are_bounded_and_each_counts_once() -> None:
    many = ("a", "a", *(f"c{number}" for number in range(100)))
    cleaned = sighting(capabilities=many).cleaned().capabilities
    assert cleaned[:2] == ("a", "c0")
    assert len(cleaned) == CAPABILITIES_MAX


def test_what_came_by_way_of_another_peer_is_hearsay() -> None:
    assert sighting(reporter="b").is_hearsay
    assert not sighting().is_hearsay
    assert Sighting(peer="", addresses=("/a",), source=Source.CONFIGURATION).is_configured
