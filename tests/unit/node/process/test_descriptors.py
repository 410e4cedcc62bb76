"""File descriptors are divided so that swarm and API together leave what the node itself needs."""

import pytest

from discovery.interfaces import INTERFACES_MAX
from node.api.limits import ServerLimits
from node.api.limits import within as api_within
from node.process.descriptors import API_MAX, MDNS, OWN, RESERVE, DescriptorBudget, TooFewDescriptors, divide
from node.swarm.limits import USUAL, within


def test_what_is_divided_is_never_more_than_there_is() -> None:
    for total in (*range(62, 3000), 8192, 65_536):
        budget = divide(total, is_open=3, listens=1)
        swarm, api = within(USUAL, sockets=budget.swarm), api_within(ServerLimits(), sockets=budget.api)
        sockets = swarm.connections_max + swarm.dialling_max + api.connections_max + api.surplus_max
        assert 3 + 1 + OWN + RESERVE + sockets <= total
        assert min(swarm.connections_max, swarm.dialling_max, api.connections_max, api.surplus_max) > 0


def test_with_many_the_limits_are_the_usual_ones() -> None:
    budget = divide(8192, is_open=3, listens=1)
    assert within(USUAL, sockets=budget.swarm) == USUAL
    assert api_within(ServerLimits(), sockets=budget.api) == ServerLimits()


def test_a_node_without_a_swarm_gives_all_to_its_api() -> None:
    assert divide(100, is_open=3, listens=0) == DescriptorBudget(swarm=0, api=100 - 3 - OWN - RESERVE)
    assert divide(8192, is_open=3, listens=0).api == API_MAX


def test_the_search_of_the_local_network_has_sockets_for_all_its_interfaces() -> None:
    loop_and_listener = 3 + 1
    assert loop_and_listener + 2 * INTERFACES_MAX <= MDNS
    assert divide(300 + MDNS, is_open=3, listens=1, has_mdns=True) == divide(300, is_open=3, listens=1)


@pytest.mark.parametrize(("total", "listens", "needed"), [(61, 1, 62), (24, 1, 62), (44, 0, 45), (62, 2, 63)])
def test_too_few_are_refused_with_how_many_are_needed(total: int, listens: int, needed: int) -> None:
    with pytest.raises(
        TooFewDescriptors, match=f"may open {total} files and sockets, and a node needs at least {needed}"
    ):
        divide(total, is_open=3, listens=listens)
