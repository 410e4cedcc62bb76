"""The ledger has every acknowledged write, and nothing else."""

import json

import pytest

from netsim.demo.ledger import AcknowledgedWrite, WriteLedger
from netsim.processes.client import NodeReply

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
