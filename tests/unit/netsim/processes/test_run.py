"""The numbers of a live run."""

from dataclasses import replace

from netsim.history import Outcome
from netsim.processes.run import live_facts
from tests.unit.histories import good


def test_the_facts_of_a_run_count_hybrid_calls_at_nodes_without_a_fault() -> None:
    history = good()
    facts = live_facts(history)
    assert (facts["calls"], facts["acknowledged"], facts["hybrid_calls"], facts["hybrid_failed"]) == (4, 2, 4, {})
    assert facts["settle_seconds"] == 5.0
    write = history.operations[0]
    history.operations += [
        replace(write, id=50, outcome=Outcome.FAILED, receipt=None, error="UCXL-503-UNAVAILABLE: why"),
        replace(write, id=51, outcome=Outcome.FAILED, receipt=None, error="x", excused="it was frozen"),
        replace(write, id=52, outcome=Outcome.FAILED, receipt=None, error="x", backend="hybrid>real"),
    ]
    facts = live_facts(history)
    assert (facts["hybrid_calls"], facts["excused"]) == (5, 1)
    assert facts["hybrid_failed"] == {"UCXL-503-UNAVAILABLE": 1}
