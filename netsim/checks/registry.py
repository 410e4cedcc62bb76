"""All checks by name, in the order in which a report has their violations; and the verdict over a history."""

from collections.abc import Callable, Iterator

from netsim.checks.bounds import bounded
from netsim.checks.convergence import equal, settles
from netsim.checks.durability import nothing_lost, replicas, survives_a_crash
from netsim.checks.latency import answers, in_time
from netsim.checks.order import never_back, siblings_kept
from netsim.checks.provenance import honest, nothing_made_up, up_to_date
from netsim.checks.violation import Violation
from netsim.history import History

CHECKS: dict[str, Callable[[History], Iterator[Violation]]] = {
    "survives-a-crash": survives_a_crash,
    "nothing-lost": nothing_lost,
    "siblings-kept": siblings_kept,
    "never-back": never_back,
    "equal": equal,
    "in-time": in_time,
    "honest": honest,
    "up-to-date": up_to_date,
    "nothing-made-up": nothing_made_up,
    "settles": settles,
    "replicas": replicas,
    "bounded": bounded,
    "answers": answers,
}
"""The seven promises of `docs/design.md` in their order (the last one is three checks), then what follows from them."""


def find_violations(history: History) -> tuple[Violation, ...]:
    return tuple(violation for check in CHECKS.values() for violation in check(history))
