"""Rendezvous keys: their bytes, and what they are made from."""

from protocols.capabilities import Label, Model, Role, Service
from protocols.rendezvous import key_of_capability, key_of_network


def test_the_keys_are_golden() -> None:
    assert key_of_network("bzzz") == b"/ucxl/LQZF95wRF39Ck89NWG6kUIn3NpHiwwrKEM4_z9_6Ch8"
    assert key_of_capability("bzzz", Role("planner")) == b"/ucxl/JheWcCdKE7Ip8A_S883CI7v35GkbaMSHD8Rt8tfVScc"


def test_a_key_depends_on_the_network_the_kind_and_the_name_alone() -> None:
    assert key_of_capability("a", Model("llama3", "70b")) == key_of_capability("a", Model("llama3", "8b", "9f" * 32))
    assert key_of_capability("a", Label("x", "1")) == key_of_capability("a", Label("x", "2"))
    keys = [key_of_network("a"), key_of_network("b")]
    keys += [key_of_capability("a", each) for each in (Role("x"), Model("x"), Service("x", "a:1"), Label("x"))]
    keys += [key_of_capability("b", Role("x"))]
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {49}
