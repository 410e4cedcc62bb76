"""Every reply of a node can be shown, whatever is in it."""

from netsim.processes.client import NodeReply


def test_a_reply_that_is_no_json_is_shown_and_raises_nothing() -> None:
    assert NodeReply(status=200, elapsed_ms=1.0, body=b"\xff\x00").data == {}
    assert str(NodeReply(status=502, elapsed_ms=1.0, body=b"<html>")) == "HTTP 502, 6 bytes"
    assert str(NodeReply(status=0, elapsed_ms=1.0, problem="refused")) == "refused"
