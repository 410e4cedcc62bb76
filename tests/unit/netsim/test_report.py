"""A failure report has what broke, the command that replays it, and what led to it, in order and in words."""

from dataclasses import replace

from netsim.checks.registry import find_violations
from netsim.history import NemesisEvent
from netsim.report import failure_report
from tests.unit.histories import V1, B, answer, good, state


def test_a_story_has_the_seed_the_command_and_what_led_to_it_in_order() -> None:
    history = good()
    history.events += [
        NemesisEvent(at=2.5, kind="partition", nodes=("n1", "n2"), text="n1 from n2 were parted"),
        NemesisEvent(at=2.9, kind="pause", nodes=("n9",), text="n9 froze"),
    ]
    history.operations[-1] = replace(history.operations[-1], answer=answer(V1))
    history.states[1] = state("n2", (V1.digest,), (V1,))
    violations = [one for one in find_violations(history) if one.check == "nothing-lost"]
    story = failure_report("by-hand", 7, history, violations)
    lines = story.splitlines()
    assert lines[0] == "by-hand, seed 7: nothing-lost"
    assert lines[1].strip() == "again: bzzz sim run by-hand --world virtual --seed 7"
    assert f"nothing-lost: n1 acknowledged {B} of k1 at 3.010 s" in story
    parted = next(number for number, line in enumerate(lines) if line.endswith("2.500 s  n1 from n2 were parted"))
    written = next(
        number for number, line in enumerate(lines) if f"3.010 s  n1 acknowledged a write of k1: {B}" in line
    )
    assert parted < written
    assert "n9" not in story
