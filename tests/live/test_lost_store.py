"""A store that was removed or swapped while its node did not run: the next start says so, alone and beside a peer."""

import shutil
from pathlib import Path

import pytest

from node.process.identity import keep, load_or_make
from node.store.sqlite.owner import Owner
from node.store.sqlite.store import SqliteStore
from tests.live.node_processes import Up, call, data_of, refusal
from tests.live.test_copies import Pair, address, content, delivered, put, reasons
from tests.live.test_copies import pair as pair  # the fixture
from tests.until import block_until

STORE_FILES = ("store.db", "store.db-wal", "store.db-shm")


def status(api: str) -> str:
    return str(data_of(api, "/health")["status"])


def lacks(api: str) -> str:
    return str(data_of(api, "/v1/node")["lacks"])


def remove_store(directory: Path) -> None:
    for name in STORE_FILES:
        (directory / name).unlink(missing_ok=True)


@pytest.mark.parametrize(("backend", "is_killed"), [("hybrid", True), ("mock", False)])
def test_a_lone_node_whose_store_was_removed_says_so_until_it_was_ended_in_order(
    up: Up, tmp_path: Path, backend: str, is_killed: bool
) -> None:
    process = up("--backend", backend)
    first = process.ready()
    assert status(first["api"]) == "healthy"
    put(first["api"], "one", b"1")
    if is_killed:
        process.end()
    else:
        assert process.stop() == 0
    remove_store(tmp_path / "data")
    for _ in range(2):  # the second time it follows a kill
        process = up("--backend", backend)
        ready = process.ready()
        assert ready["peer_id"] == first["peer_id"]
        assert status(ready["api"]) == "degraded"
        assert "is missing although this node has run before" in reasons(ready["api"])
        assert "is missing although this node has run before" in lacks(ready["api"])
        put(ready["api"], "two", b"2")
        process.popen.kill()
        process.popen.wait()
    process = up("--backend", backend)
    process.ready()
    assert process.stop() == 0
    ready = up("--backend", backend).ready()
    assert (status(ready["api"]), lacks(ready["api"])) == ("healthy", "")
    assert content(ready["api"], "two") == b"2"


def test_a_node_whose_store_was_removed_asks_its_peer(pair: Pair) -> None:
    put(pair.b, "one", b"1")
    put(pair.a, "two", b"2")
    block_until(lambda: delivered(pair.a) and delivered(pair.b))
    pair.end_b()
    remove_store(pair.directory)
    pair.start_b()
    assert "is missing although this node has run before" in reasons(pair.b)
    assert (content(pair.b, "one"), content(pair.b, "two")) == (b"1", b"2")
    block_until(lambda: lacks(pair.b) == "", seconds=60)


def test_the_store_of_another_node_is_refused_and_names_both(up: Up, tmp_path: Path) -> None:
    ids = {}
    for name in ("one", "two"):
        process = up("--backend", "mock", data=name)
        ready = process.ready()
        ids[name] = ready["peer_id"]
        put(ready["api"], "one", name.encode())
        assert process.stop() == 0
    shutil.copyfile(tmp_path / "two" / "store.db", tmp_path / "one" / "store.db")
    line = refusal("--data-dir", str(tmp_path / "one"), "--api", "127.0.0.1:0", "--backend", "mock")
    assert f"is the store of {ids['two']}" in line
    assert f"identity here is that of {ids['one']}" in line
    (tmp_path / "one" / "identity.key").unlink()
    (tmp_path / "one" / "audit.log").unlink()
    ready = up("--backend", "mock", data="one").ready()
    assert ready["peer_id"] not in ids.values()
    assert content(ready["api"], "one") == b"two"


def test_a_key_that_was_lost_is_replaced_and_what_was_owed_is_delivered(pair: Pair, up: Up) -> None:
    pair.end_b()
    process = up("--backend", "mock", data="b")  # without its peer, which may dial it at once
    ready = process.ready()
    put(ready["api"], "one", b"1")
    assert not delivered(ready["api"])
    assert process.stop() == 0
    (pair.directory / "identity.key").unlink()
    pair.start_b()
    assert f"is the store of {ready['peer_id']}, whose key was lost or replaced" in reasons(pair.b)
    block_until(lambda: delivered(pair.b))
    assert call(pair.a, address("one") + "&consistency=local")[1] == b"1"
    assert pair.process.stop() == 0
    pair.start_b()
    assert "whose key was lost" not in reasons(pair.b)


def test_an_older_copy_of_the_store_alone_is_noticed_by_a_lone_node(up: Up, tmp_path: Path) -> None:
    process = up()
    put(process.ready()["api"], "one", b"1")
    assert process.stop() == 0
    shutil.copyfile(tmp_path / "data" / "store.db", tmp_path / "copy")
    process = up()
    put(process.ready()["api"], "one", b"2")
    assert process.stop() == 0
    shutil.copyfile(tmp_path / "copy", tmp_path / "data" / "store.db")
    process = up()
    api = process.ready()["api"]
    assert content(api, "one") == b"1"
    assert status(api) == "degraded"
    assert "and the store has nothing of it" in reasons(api)
    assert process.stop() == 0
    assert status(up().ready()["api"]) == "healthy"


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_first_start_that_was_killed_is_followed_by_a_silent_one(up: Up, tmp_path: Path, steps: int) -> None:
    data = tmp_path / "data"
    data.mkdir()
    key, is_new = load_or_make(data, seed=bytes(32))
    if steps > 1:
        SqliteStore.open(data / "store.db", random_id="0" * 16, owner=Owner(key.peer_id, is_new=is_new)).close()
    if steps > 2:
        keep(data)
    ready = up().ready()
    assert ready["peer_id"] == key.peer_id
    assert (status(ready["api"]), lacks(ready["api"])) == ("healthy", "")
    assert not (data / "identity.key.new").exists()
