"""Each kind of fault is complete: its keys are fields of its own, and it is in the table under its name."""

from dataclasses import MISSING, fields

import pytest

from netsim.faults import kinds
from netsim.faults.base import Fault
from netsim.faults.kinds import KINDS


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.kind)
def test_the_keys_of_a_kind_are_all_its_own_fields_and_some_that_every_fault_has(kind: type[Fault]) -> None:
    names = [field.name for field in fields(kind)]
    own = {*names} - {field.name for field in fields(Fault)}
    assert {*kind.keys} <= {*names}
    assert own <= {*kind.keys}, "a field that no scenario file can set"
    assert "at" not in kind.keys


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.kind)
def test_a_field_without_a_default_is_required_or_made_of_keys_that_have_one(kind: type[Fault]) -> None:
    without_default = {one.name for one in fields(kind) if one.default is one.default_factory is MISSING}
    assert without_default - {"at", "quality"} <= {*kind.required}


def test_the_table_has_every_kind_under_its_name() -> None:
    assert all(kind.kind == name for name, kind in KINDS.items())
    defined = {one for one in vars(kinds).values() if isinstance(one, type) and issubclass(one, Fault)} - {Fault}
    assert {*KINDS.values()} == defined
