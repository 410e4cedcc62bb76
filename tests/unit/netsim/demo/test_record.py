"""The record of a demonstration: which calls are in time, and what a wrong or late one does to the verdict."""

import io
import json
from collections.abc import Sequence

import pytest

from netsim.demo.record import DISK_MS_MAX, DemonstrationRecord
from netsim.processes.client import NodeReply
from netsim.processes.screen import JsonScreen


@pytest.mark.parametrize(
    ("milliseconds", "disk_ms_max", "holds", "words"),
    [
        ((5.0, 99.0), 0.0, True, "2 of 2 puts within 100 ms: "),
        ((5.0, 101.0), 0.0, False, "1 of 2 puts within 100 ms: "),
        ((5.0, 300.0), DISK_MS_MAX, True, "1 of 2 puts within 100 ms, 1 waited for the disk too: "),
        ((5.0, 1_101.0), DISK_MS_MAX, False, "1 of 2 puts within 100 ms: "),
    ],
)
def test_a_call_is_in_time_and_a_write_may_wait_for_the_disk_too(
    milliseconds: Sequence[float],
    disk_ms_max: float,
    holds: bool,
    words: str,
) -> None:
    out = io.StringIO()
    record = DemonstrationRecord(JsonScreen(out), replication=2)
    answers = [(True, NodeReply(status=201, elapsed_ms=each)) for each in milliseconds]
    record.check_calls("frozen-put", "puts", answers, disk_ms_max=disk_ms_max)
    assert record.holds is holds
    assert words in json.loads(out.getvalue().splitlines()[0])["text"]


def test_a_wrong_answer_fails_the_check_however_quick_it_was() -> None:
    record = DemonstrationRecord(JsonScreen(io.StringIO()), replication=2)
    record.check_calls("frozen-put", "puts", [(False, NodeReply(status=503, elapsed_ms=1.0))], disk_ms_max=DISK_MS_MAX)
    assert not record.holds
