"""Length-prefixed messages come out whole, however the bytes were cut; a length that is too large is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.swarm.libp2p.message_splitter import MessageSplitter, MessageTooLong, prefixed


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(1, 40), min_size=1))
def test_messages_come_out_as_they_went_in(messages: list[bytes], cuts: list[int]) -> None:
    stream, splitter, found = b"".join(prefixed(each) for each in messages), MessageSplitter(1000), list[bytes]()
    at = 0
    while at < len(stream):
        size = cuts[at % len(cuts)]
        found += splitter.feed(stream[at : at + size])
        at += size
    assert found == messages
    assert splitter.held_bytes == 0


@pytest.mark.parametrize("length", [b"\xe9\x07", b"\x80\x80\x40", b"\xff\xff\xff\x7f"])
def test_a_message_that_is_too_long_is_refused_by_its_length(length: bytes) -> None:
    splitter = MessageSplitter(1000)
    with pytest.raises(MessageTooLong, match="1,000 is the most"):
        splitter.feed(length)


def test_a_length_without_an_end_is_refused() -> None:
    splitter = MessageSplitter(1000)
    with pytest.raises(MessageTooLong):
        for _ in range(4):
            splitter.feed(b"\x80")
