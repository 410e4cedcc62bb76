"""Scenarios are data: every shipped one can be played, and a file that cannot be played is refused by name."""

from dataclasses import replace
from pathlib import Path

import pytest

from netsim.faults.kinds import KINDS, Pause
from netsim.scenario.model import Chaos
from netsim.scenario.plan import plan_of
from netsim.scenario.toml import CHAOS_KINDS, load, names, read
from netsim.scenario.values import ScenarioRefused

GOOD = 'about = "a test"\nnodes = 3\n'
FAULT = GOOD + '\n[[fault]]\nkind = "pause"\nnodes = ["n2"]\nat = 2.0\nuntil = 4.0\n'


def refusal(path: Path, text: str) -> ScenarioRefused:
    file = path / "scenario.toml"
    file.write_text(text)
    with pytest.raises(ScenarioRefused) as refused:
        read(file)
    assert refused.value.file == str(file)
    assert str(refused.value).startswith(f"{file}: ")
    return refused.value


@pytest.mark.parametrize("name", names())
def test_every_shipped_scenario_can_be_planned(name: str) -> None:
    scenario = load(name)
    assert (scenario.name, bool(scenario.about)) == (name, True)
    plan = plan_of(scenario, 1)
    assert plan.calls
    assert [fault.at for fault in plan.faults] == sorted(fault.at for fault in plan.faults)


def test_the_scenarios_that_were_promised_are_there() -> None:
    promised = {
        "pure-mock", "pure-real", "mixed", "fallback", "recovery", "partition", "load", "rolling-restart",
        "flapping-link", "slow-node", "clock-ahead", "clock-jump", "join-storm", "mass-crash", "disk-full",
        "writer-dies-with-hints", "liar", "standard",
    }  # fmt: skip
    assert promised <= {*names()}


def test_a_good_scenario_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(FAULT)
    scenario = read(tmp_path / "mine.toml")
    assert (scenario.name, scenario.nodes) == ("mine", ("n1", "n2", "n3"))
    assert scenario.faults == (Pause(at=2.0, until=4.0, nodes=("n2",)),)


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        ("nodes = 3\n", "about", "missing"),
        ('about = ""\nnodes = 3\n', "about", "text"),
        ('about = "x"\n', "nodes", "missing"),
        (GOOD + "nodez = 3\n", "nodez", "did you mean nodes?"),
        (GOOD + "replication = 0\n", "replication", "out of range"),
        (GOOD + 'replication = "3"\n', "replication", "whole number"),
        (GOOD + 'backend = "hybird"\n', "backend", "did you mean hybrid?"),
        (GOOD + '[backends]\nn9 = "mock"\n', "backends.n9", "no such key"),
        (GOOD + "[settings]\ndeadline = 3\n", "settings.deadline", "did you mean deadline_ms?"),
        (GOOD + "[settings]\ndeadline_ms = -1\n", "settings.deadline_ms", "out of range"),
        (GOOD + "[workload]\nwriter = 1\n", "workload.writer", "did you mean writes?"),
        (GOOD + "[workload]\nwrites = 1.5\n", "workload.writes", "out of range"),
        (GOOD + "[workload]\nwrites = nan\n", "workload.writes", "not a number"),
        (GOOD + "[workload]\nseen = 0.7\nblind = 0.7\n", "workload.seen", "over 1"),
        (GOOD + '[workload]\nnodes = ["n7"]\n', "workload.nodes", "no node 'n7'"),
        (GOOD + "[workload]\nsize_bytes = [9, 3]\n", "workload.size_bytes", "ascend"),
        (GOOD + "[workload]\nuntil = 30\n", "workload.until", "after limits.faults_seconds"),
        (GOOD + "[limits]\nfaults_seconds = 0\n", "limits.faults_seconds", "out of range"),
        (GOOD + "[limits]\nsettle = 3\n", "limits.settle", "did you mean settle_seconds?"),
        (GOOD + '[chaos]\nkinds = ["crsh"]\n', "chaos.kinds", "did you mean crash?"),
        (GOOD + "[chaos]\nevery_seconds = 3\n", "chaos.kinds", "list"),
        (GOOD + '[expected_to_fail]\nequals = "x"\n', "expected_to_fail.equals", "did you mean equal?"),
        (GOOD + "fault = 3\n", "fault", "[[fault]]"),
        (FAULT.replace('"pause"', '"paus"'), "fault 1.kind", "did you mean pause?"),
        (FAULT.replace("nodes = [", "node = ["), "fault 1 (pause).node", "did you mean nodes?"),
        (FAULT.replace("n2", "n4"), "fault 1.nodes", "there are n1 to n3"),
        (FAULT.replace("at = 2.0\n", ""), "fault 1.at", "missing"),
        (FAULT.replace("2.0", "-2.0"), "fault 1.at", "out of range"),
        (FAULT.replace("2.0", "25.0"), "fault 1.at", "after limits.faults_seconds"),
        (FAULT.replace("4.0", "1.0"), "fault 1.until", "before it begins"),
        (FAULT.replace("4.0", "21.0"), "fault 1.until", "after limits.faults_seconds"),
        (FAULT.replace('["n2"]', '["*"]') + "every_seconds = 9.0\n", "fault 1.every_seconds", "too late"),
        (FAULT.replace("pause", "crash") + "is_forever = true\n", "fault 1.is_forever", "until"),
        (FAULT + "loss = 0.1\n", "fault 1 (pause).loss", "no such key"),
        (GOOD + '[[fault]]\nkind = "partition"\nat = 1.0\n', "fault 1.groups", "a partition needs it"),
        (GOOD + '[[fault]]\nkind = "partition"\nat = 1.0\ngroups = [["n1"], ["n1"]]\n', "fault 1.groups", "two groups"),
        (GOOD + '[[fault]]\nkind = "cut"\nat = 1.0\nsources = ["n1"]\n', "fault 1.targets", "a cut needs it"),
        (GOOD + '[[fault]]\nkind = "link"\nat = 1.0\nsources = ["n1"]\n', "fault 1.sources", "together"),
        (GOOD + '[[fault]]\nkind = "join"\nat = 1.0\nnodes = ["*"]\n', "fault", "no node runs at the start"),
        (FAULT + '[[fault]]\nkind = "lie"\nat = 1.0\nnodes = ["n2"]\n', "fault pause", "n2 lies"),
        (FAULT + '[[fault]]\nkind = "join"\nat = 3.0\nnodes = ["n2"]\n', "fault 1.at", "n2 joins at 3 s"),
        (GOOD + 2 * '[[fault]]\nkind = "join"\nat = 3.0\nnodes = ["n2"]\n', "fault", "n2 comes twice"),
        (GOOD + 2 * '[[fault]]\nkind = "lie"\nat = 3.0\nnodes = ["n2"]\n', "fault", "n2 comes twice"),
        (FAULT.replace("n2", "n3..n1"), "fault 1.nodes", "write n1..n3"),
        (GOOD + '[[fault]]\nkind = "partition"\nat = 1.0\ngroups = [["n1"]]\n', "fault 1.groups", "two groups"),
        (GOOD + '[[fault]]\nkind = "cut"\nat = 1.0\nsources = ["n1"]\ntargets = ["n1"]\n', "fault 1.targets", "itself"),
        (GOOD + '[[fault]]\nkind = "disk"\nat = 1.0\nnodes = ["n1"]\n', "fault 1", "name one"),
        (
            GOOD + '[[fault]]\nkind = "disk"\nat = 1.0\nnodes = ["n1"]\nis_full = true\nis_stalled = true\n',
            "fault 1", "name one",
        ),
        (
            GOOD + 'backend = "mock"\n[[fault]]\nkind = "flip"\nat = 1.0\nnodes = ["n1"]\nbackend = "hybrid"\n',
            "fault 1.nodes", "without a network",
        ),
        (GOOD + "[workload]\nclients = 2\nreaders = 3\n", "workload.readers", "there are 2"),
        (GOOD + "[settings]\nwrite_quorum = 2.5\n", "settings.write_quorum", "whole number"),
        (GOOD + "[settings]\nread_quorum = 30\n", "settings.read_quorum", "never reached with replication 20"),
    ],
)  # fmt: skip
def test_what_cannot_be_played_is_refused_with_file_key_and_reason(
    tmp_path: Path, text: str, key: str, reason: str
) -> None:
    refused = refusal(tmp_path, text)
    assert (refused.key, reason in refused.reason) == (key, True), str(refused)


def test_what_is_no_toml_and_what_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "not TOML" in refusal(tmp_path, "nodes = = 3").reason
    with pytest.raises(ScenarioRefused, match="No such file"):
        load(str(tmp_path / "none.toml"))
    with pytest.raises(ScenarioRefused, match="did you mean partition"):
        load("partitoin")


# -- plans ----------------------------------------------------------------------------------------------------------


def test_a_plan_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    scenario = load("standard")
    assert plan_of(scenario, 5) == plan_of(scenario, 5)
    assert plan_of(scenario, 5).calls != plan_of(scenario, 6).calls
    assert plan_of(scenario, 5).faults != plan_of(scenario, 6).faults


def test_faults_do_not_change_the_calls() -> None:
    scenario = load("standard")
    assert plan_of(scenario, 5).calls == plan_of(replace(scenario, chaos=None), 5).calls


def test_drawn_faults_stay_within_the_run_and_every_kind_is_drawn() -> None:
    scenario = replace(
        load("standard"), chaos=Chaos(kinds=tuple(KINDS[name] for name in CHAOS_KINDS), every_seconds=0.5)
    )
    drawn = [fault for seed in range(20) for fault in plan_of(scenario, seed).faults]
    assert {fault.kind for fault in drawn} == {*CHAOS_KINDS}
    assert all(0.0 <= fault.at < (fault.until or 20.0) <= 20.0 for fault in drawn)


def test_the_workload_is_as_the_scenario_says() -> None:
    scenario = load("standard")
    calls = [call for seed in range(20) for call in plan_of(scenario, seed).calls]
    assert 0.45 < sum(call.is_write for call in calls) / len(calls) < 0.55
    assert sum(call.key == "k1" for call in calls) > 4 * sum(call.key == "k12" for call in calls)
    assert {call.node for call in calls} == {*scenario.nodes}
    assert all(
        call.content().startswith(f"{call.client}/{call.id} ".encode()) for call in calls if call.kind == "write"
    )
