"""Frames come out of the splitter as they went in, wherever the bytes were cut."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.swarm.base import FRAME_BYTES_MAX, Lane
from node.swarm.libp2p.frame_splitter import FrameSplitter
from tests.unit.vectors import load


def framed(*frames: bytes) -> bytes:
    return b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(1, 50), max_size=60))
def test_frames_come_out_whole_and_in_order_wherever_they_were_cut(frames: list[bytes], cuts: list[int]) -> None:
    got: list[bytes] = []
    splitter = FrameSplitter(got.append, refuse=lambda why: None)
    data = framed(*frames)
    for cut in [*cuts, len(data)]:
        splitter.feed(data[:cut])
        data = data[cut:]
    assert got == frames


@pytest.mark.parametrize("vector", load("messages")["lanes"], ids=lambda vector: vector["name"])
def test_golden_lanes_begin_with_their_name_and_hold_frames(vector: dict[str, Any]) -> None:
    got: list[bytes] = []
    FrameSplitter(got.append, refuse=lambda why: None).feed(bytes.fromhex(vector["stream"]))
    assert got == [bytes([Lane(vector["lane"])]), *map(bytes.fromhex, vector["frames"])]


@given(st.integers(FRAME_BYTES_MAX + 1, 2**32 - 1), st.binary(max_size=9))
def test_a_length_over_the_limit_is_refused_once_and_nothing_comes_after_it(size: int, rest: bytes) -> None:
    got: list[bytes] = []
    refusals: list[str] = []
    splitter = FrameSplitter(got.append, refusals.append)
    splitter.feed(framed(b"before") + size.to_bytes(4, "big") + rest)
    splitter.feed(framed(b"after"))
    assert got == [b"before"]
    assert refusals == [f"announced a frame of {size:,} bytes, and 8,388,608 is the most"]


@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=20))
def test_an_incomplete_frame_is_counted_kept_in_few_pieces_and_released(cuts: list[int]) -> None:
    splitter = FrameSplitter(lambda frame: None, refuse=lambda why: None)
    splitter.feed(FRAME_BYTES_MAX.to_bytes(4, "big"))
    for cut in cuts:
        splitter.feed(bytes(cut))
    assert splitter.held_bytes == 4 + sum(cuts)
    # private: nothing but memory depends on the number of pieces
    assert len(splitter._held) <= 1 + splitter.held_bytes // (64 * 1024)
    splitter.stop()
    assert (splitter.held_bytes, splitter._held) == (0, [])


def test_a_splitter_that_is_stopped_in_a_frame_delivers_no_further_one() -> None:
    got: list[bytes] = []

    def deliver(frame: bytes) -> None:
        got.append(frame)
        splitter.is_stopped = True

    splitter = FrameSplitter(deliver, refuse=lambda why: None)
    splitter.feed(framed(b"one", b"two"))
    assert got == [b"one"]
