"""The catalogue of attacks: complete, with unique names, and each attack documented."""

import inspect
from types import ModuleType

import pytest

from attacks import catalogue, on_api
from attacks.attack_run import AttackRun, name_of
from attacks.catalogue import ATTACKS, fitting
from attacks.target import AttackTarget
from protocols.keys import PrivateKey

MODULES = [module for module in vars(catalogue).values() if isinstance(module, ModuleType)]
TARGET = AttackTarget(host="127.0.0.1", port=4001, peer=PrivateKey.from_seed(bytes(32)).peer_id)


def test_names_are_unique() -> None:
    assert len(ATTACKS) == sum(len(module.ATTACKS) for module in MODULES)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_attack_of_a_module_is_in_its_list(module: ModuleType) -> None:
    public = {
        function
        for name, function in inspect.getmembers(module, inspect.iscoroutinefunction)
        if function.__module__ == module.__name__
        and not name.startswith("_")
        and [each.annotation for each in inspect.signature(function).parameters.values()] == [AttackRun]
    }
    assert public == set(module.ATTACKS)


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_has_a_line_of_documentation(name: str) -> None:
    lines = (ATTACKS[name].__doc__ or "").strip().splitlines()
    assert lines, "`scripts/attack --list` shows the first line"
    assert lines[0].endswith(".")


def test_a_target_without_an_api_is_attacked_by_the_swarm_alone() -> None:
    on_the_api = {name_of(attack) for attack in on_api.ATTACKS}
    assert set(fitting(TARGET)) == set(ATTACKS) - on_the_api
    with_api = AttackTarget(host="127.0.0.1", port=4001, peer=TARGET.peer, api=("127.0.0.1", 8080))
    assert fitting(with_api) == ATTACKS
