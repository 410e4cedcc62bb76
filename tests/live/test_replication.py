"""Real nodes that die for good: others hold in their place, and the API says so meanwhile."""

from tests.live.node_processes import Process, Up, call, connected, data_of
from tests.live.test_copies import address, content, delivered, put
from tests.until import block_until

NODES, REPLICATION, ADDRESSES = 5, 2, 20
ENVIRONMENT = {"BZZZ_REPLICATION": str(REPLICATION), "BZZZ_REPLICA_GRACE": "3s"}


def copies(apis: list[str], name: str) -> int:
    """How many of these nodes have an address in their own store."""
    return sum(call(api, address(name) + "&consistency=local")[0] == 200 for api in apis)


def test_the_replicas_of_a_dead_writer_are_made_again_when_a_holder_dies_too(up: Up) -> None:
    first = up("--name", "n0", environment=ENVIRONMENT, data="n0")
    ready = first.ready()
    processes: list[Process] = [first]
    apis: list[str] = [ready["api"]]
    for number in range(1, NODES):
        arguments = ("--bootstrap", ready["multiaddrs"][0], "--name", f"n{number}")
        processes.append(up(*arguments, environment=ENVIRONMENT, data=f"n{number}"))
        apis.append(processes[-1].ready()["api"])
    block_until(lambda: all(connected(api) == NODES - 1 for api in apis), seconds=60)
    names = [f"a{number}" for number in range(ADDRESSES)]
    for name in names:
        put(apis[0], name, name.encode())
    block_until(lambda: delivered(apis[0]), seconds=30)
    for process in (processes[0], processes[3]):
        process.popen.kill()
        process.popen.wait()
    rest = [apis[1], apis[2], apis[4]]
    assert any(copies(rest, name) < REPLICATION for name in names), "otherwise this shows nothing"
    block_until(lambda: all(copies(rest, name) >= REPLICATION for name in names), seconds=90)
    block_until(lambda: all(data_of(api, "/v1/at-risk")["addresses"] == 0 for api in rest), seconds=60)
    for api in rest:
        assert {member["name"] for member in data_of(api, "/v1/at-risk")["replaced"]} == {"n0", "n3"}
        assert [content(api, name) for name in names] == [name.encode() for name in names]
