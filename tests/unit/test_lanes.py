"""Frames come out of bytes as they went in, however the bytes were cut on the way."""

from hypothesis import given
from hypothesis import strategies as st

from node.swarm.base import FRAME_BYTES_MAX
from node.swarm.lanes import Splitter


def framed(*frames: bytes) -> bytes:
    return b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(1, 50), max_size=60))
def test_frames_come_out_whole_and_in_order_however_they_were_cut(frames: list[bytes], cuts: list[int]) -> None:
    got: list[bytes] = []
    splitter = Splitter(got.append, refuse=lambda why: None)
    data = framed(*frames)
    for cut in [*cuts, len(data)]:
        splitter.feed(data[:cut])
        data = data[cut:]
    assert got == frames


@given(st.integers(FRAME_BYTES_MAX + 1, 2**32 - 1), st.binary(max_size=9))
def test_a_length_over_the_limit_is_refused_once_and_nothing_comes_after_it(size: int, rest: bytes) -> None:
    got: list[bytes] = []
    refusals: list[str] = []
    splitter = Splitter(got.append, refusals.append)
    splitter.feed(framed(b"before") + size.to_bytes(4, "big") + rest)
    splitter.feed(framed(b"after"))
    assert got == [b"before"]
    assert refusals == [f"announced a frame of {size:,} bytes, and 8,388,608 is the most"]


def test_a_splitter_that_is_stopped_in_a_frame_hands_over_no_further_one() -> None:
    got: list[bytes] = []

    def deliver(frame: bytes) -> None:
        got.append(frame)
        splitter.is_stopped = True

    splitter = Splitter(deliver, refuse=lambda why: None)
    splitter.feed(framed(b"one", b"two"))
    assert got == [b"one"]
