"""The status of a node knows the backends that were in force."""

from netsim.world import NodeStatus


def test_a_call_knows_the_backends_of_its_node_meanwhile() -> None:
    status = NodeStatus("hybrid")
    assert (status.in_force, status.backend_since(0, "hybrid")) == ("hybrid", "hybrid")
    status.flips += ["hybrid>real", "real"]
    assert status.in_force == "real"
    assert status.backend_since(0, "hybrid") == "hybrid>real"
    assert status.backend_since(1, "hybrid>real") == "hybrid>real"
    assert status.backend_since(2, "real") == "real"
    status.flips += ["real>mock", "mock", "mock>hybrid", "hybrid"]
    assert status.backend_since(2, "real") == "real>mock>hybrid"
