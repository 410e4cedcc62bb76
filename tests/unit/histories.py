"""Histories written by hand, for the checkers: a good one of two nodes, and parts to break it with."""

from dataclasses import replace

from netsim.history import (
    AnswerRecord,
    FinalState,
    History,
    NemesisEvent,
    Operation,
    Outcome,
    ReceiptRecord,
    Recovery,
    ResourceSample,
    RunParameters,
    ShownVersion,
)

A, B, C = "a" * 16, "b" * 16, "c" * 16
NODES = ("n1", "n2")


def parameters(**others: object) -> RunParameters:
    plain = RunParameters(
        scenario="by-hand",
        seed=1,
        nodes=NODES,
        replication=20,
        deadline_seconds={"hybrid": 0.1, "real": 1.0, "mock": 1.0},
        freshness_seconds=5.0,
        faults_seconds=20.0,
        settle_seconds=60.0,
        tasks_per_node=100,
        frames_per_link=1024,
        holders={"k1": NODES},
    )
    return replace(plain, **others)  # type: ignore[arg-type]


def ref(digest: str, version: int, *, op: int, author: str = "n1", parents: tuple[str, ...] = ()) -> ShownVersion:
    return ShownVersion(digest, version, author, op, False, parents)


def operation(id: int, node: str, called: float, returned: float, **others: object) -> Operation:
    plain = Operation(
        id=id, client="c1", node=node, backend="hybrid", disk=0, kind="read", key="k1", how="auto", called=called,
        returned=returned, outcome=Outcome.OK,
    )  # fmt: skip
    return replace(plain, **others)  # type: ignore[arg-type]


def receipt(digest: str, version: int, *, parents: tuple[str, ...] = (), **others: object) -> ReceiptRecord:
    plain = ReceiptRecord(
        digest=digest, version=version, parents=parents, backend="real", durability="replicated", acknowledged=1,
        wanted=1, quorum=1, log_id="0" * 16, sequence=1, held_by=NODES,
    )  # fmt: skip
    return replace(plain, **others)  # type: ignore[arg-type]


def write(id: int, node: str, at: float, got: ReceiptRecord, **others: object) -> Operation:
    return operation(id, node, at, at + 0.01, kind="write", how="node", receipt=got, digest=got.digest, **others)


def answer(*heads: ShownVersion, **others: object) -> AnswerRecord:
    plain = AnswerRecord(
        heads=heads, backend="hybrid", source="local", age_ms=10.0, replicas=1, siblings=max(0, len(heads) - 1),
        is_degraded=False, reason="",
    )  # fmt: skip
    return replace(plain, **others)  # type: ignore[arg-type]


def read(id: int, node: str, at: float, got: AnswerRecord, **others: object) -> Operation:
    return operation(id, node, at, at + 0.01, answer=got, **others)


def state(node: str, heads: tuple[str, ...], refs: tuple[ShownVersion, ...], **others: object) -> FinalState:
    plain = FinalState(
        at=30.0, node=node, backend="hybrid", heads={"k1": heads}, versions={"k1": refs}, reissued={}, hints=0,
        quarantined=0, breaker="closed",
    )  # fmt: skip
    return replace(plain, **others)  # type: ignore[arg-type]


V1 = ref(A, 10, op=1)
V2 = ref(B, 20, op=2, parents=(A,))
SIBLING = ref(C, 15, op=5, author="n2", parents=(A,))


def good() -> History:
    """n1 writes A, then B on top of it; n1 is killed and comes back; both answer with B in the end."""
    return History(
        parameters=parameters(),
        operations=[
            write(1, "n1", 1.0, receipt(A, 10)),
            read(3, "n1", 2.0, answer(V1)),
            write(2, "n1", 3.0, receipt(B, 20, parents=(A,))),
            read(4, "n2", 5.0, answer(V2)),
            read(6, "n1", 26.0, answer(V2), is_final=True),
            read(7, "n2", 26.0, answer(V2), is_final=True),
        ],
        events=[NemesisEvent(at=6.0, kind="crash", nodes=("n1",), text="n1 was killed")],
        recoveries=[Recovery(at=7.0, node="n1", disk=0, digests=(A, B))],
        samples=[ResourceSample(at=1.0, nodes=2, tasks=60, frames=3)],
        states=[state("n1", (B,), (V1, V2)), state("n2", (B,), (V1, V2))],
        healed_at=20.0,
        settled_at=25.0,
    )


def change(history: History, id: int, **others: object) -> History:
    """The history with other fields in one operation."""
    history.operations = [replace(op, **others) if op.id == id else op for op in history.operations]  # type: ignore[arg-type]
    return history


def failed(history: History, id: int = 2) -> History:
    """The history with one operation that failed."""
    return change(history, id, outcome=Outcome.FAILED, error="Unavailable: no", receipt=None, answer=None)
