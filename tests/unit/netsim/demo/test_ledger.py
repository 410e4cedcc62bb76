"""What the demonstration counts by: the ledger of what was acknowledged, and the spread of durations."""

import io
import json

import pytest

from netsim.demo.ledger import AcknowledgedWrite, Spread, WriteLedger
from netsim.processes.client import NodeReply
from netsim.processes.screen import JsonScreen, TextScreen

ADDRESS = "ucxl://demo:writer@bzzz:ledger/*^/note.txt"


def acknowledgement(*, status: int, digest: str, version: int) -> NodeReply:
    body = json.dumps({"response": {"data": {"digest": digest, "version": str(version)}}}).encode()
    return NodeReply(status=status, elapsed_ms=1.0, body=body)


@pytest.mark.parametrize("status", [200, 409, 422, 503, 504, 0])
def test_only_created_and_accepted_are_acknowledgements(status: int) -> None:
    assert AcknowledgedWrite.of(ADDRESS, b"x", "ada", acknowledgement(status=status, digest="aa", version=1)) is None


@pytest.mark.parametrize(("status", "is_replicated"), [(201, True), (202, False)])
def test_an_acknowledgement_is_entered_as_its_receipt_says(status: int, is_replicated: bool) -> None:
    write = AcknowledgedWrite.of(ADDRESS, b"x", "ada", acknowledgement(status=status, digest="aa", version=2**63 + 1))
    assert write is not None
    assert (write.digest, write.version, write.is_replicated) == ("aa", 2**63 + 1, is_replicated)


def test_the_newest_write_of_an_address_is_the_one_with_the_greatest_version() -> None:
    ledger = WriteLedger()
    for digest, version in (("aa", 5), ("bb", 9), ("cc", 7)):
        write = AcknowledgedWrite.of(ADDRESS, b"x", "ada", acknowledgement(status=202, digest=digest, version=version))
        assert write is not None
        ledger.add(write)
    assert [write.digest for write in ledger.newest().values()] == ["bb"]
    assert len(ledger.writes) == 3


@pytest.mark.parametrize(
    ("durations", "expected"),
    [
        ([], (0, 0.0, 0.0, 0.0)),
        ([3.0], (1, 3.0, 3.0, 3.0)),
        ([float(n) for n in range(100, 0, -1)], (100, 50.0, 99.0, 100.0)),
        ([1.0] * 199 + [90.0], (200, 1.0, 1.0, 90.0)),
    ],
)
def test_a_spread_never_hides_the_longest(durations: list[float], expected: tuple[float, ...]) -> None:
    assert Spread.of(durations) == expected


def test_an_answer_that_is_no_json_is_told_and_not_raised() -> None:
    assert NodeReply(status=200, elapsed_ms=1.0, body=b"\xff\x00").data == {}
    assert str(NodeReply(status=502, elapsed_ms=1.0, body=b"<html>")) == "HTTP 502, 6 bytes"
    assert str(NodeReply(status=0, elapsed_ms=1.0, problem="refused")) == "refused"


def test_every_line_of_the_json_screen_is_an_object_and_the_last_is_the_summary() -> None:
    out = io.StringIO()
    screen = JsonScreen(out)
    screen.act("write", "writing")
    screen.progress(1, 2)
    screen.check("written", "all", holds=False, calls=2)
    screen.summary("done", ok=False)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["act", "check", "summary"]
    assert lines[1] == {"event": "check", "name": "written", "ok": False, "text": "all", "calls": 2}


def test_text_that_is_no_terminals_has_no_escapes_and_no_counter() -> None:
    out = io.StringIO()
    screen = TextScreen(out)
    screen.act("write", "writing")
    screen.progress(1, 2)
    screen.check("written", "all", holds=True)
    assert "\x1b" not in out.getvalue()
    assert "\r" not in out.getvalue()
    assert "1 of 2" not in out.getvalue()
