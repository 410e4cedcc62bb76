"""The screen of a run: JSON lines for a program, plain text for a pipe."""

import io
import json

from netsim.processes.screen import JsonScreen, TextScreen


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


def test_text_for_a_pipe_has_no_escapes_and_no_counter() -> None:
    out = io.StringIO()
    screen = TextScreen(out)
    screen.act("write", "writing")
    screen.progress(1, 2)
    screen.check("written", "all", holds=True)
    assert "\x1b" not in out.getvalue()
    assert "\r" not in out.getvalue()
    assert "1 of 2" not in out.getvalue()
