"""Data directories that were copied: a node on an older copy, on a clone's, or on one that lost its end, says so and
claims no more than it knows."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from netsim.lan.site import LanHost, Site
from tests.live.node_processes import Process, Up, call, connected, data_of
from tests.unit.node.processes import BZZZ, environment
from tests.until import block_until

PAGE_BYTES = 4096 + 24
"""One frame of a write-ahead file."""


def address(name: str) -> str:
    return f"/v1/envelope?address={quote(f'ucxl://agent:role@project:task/*^/{name}', safe='')}"


def put(api: str, name: str, content: bytes, **headers: str) -> dict[str, Any]:
    status, body = call(api, address(name), method="PUT", body=content, **headers)
    assert status in (200, 201, 202), body
    data: dict[str, Any] = json.loads(body)["response"]["data"]
    return data


def content(api: str, name: str) -> bytes:
    return call(api, address(name))[1]


def delivered(api: str) -> bool:
    return bool(data_of(api, "/v1/pending")["count"] == 0)


def reasons(api: str) -> str:
    return call(api, "/health")[1].decode()


class Pair:
    """Two nodes that have met: `a` stays, `b` is ended and started again on other files."""

    def __init__(self, up: Up, folder: Path) -> None:
        self._up, self._folder = up, folder
        self._process_a = up(data="a")
        ready = self._process_a.ready()
        self.a, self._bootstrap = ready["api"], ready["multiaddrs"][0]
        self.process = self._start()
        self.b = self.process.ready()["api"]
        self._meet()

    def _start(self) -> Process:
        return self._up("--bootstrap", self._bootstrap, data="b")

    def _meet(self) -> None:
        block_until(lambda: connected(self.a) and connected(self.b))

    def end_a(self) -> None:
        self._process_a.popen.kill()
        self._process_a.popen.wait()

    def end_b(self) -> None:
        self.process.popen.kill()
        self.process.popen.wait()

    def stop_b(self) -> None:
        self.process.popen.terminate()
        self.process.popen.wait()

    def start_b(self, *, is_met: bool = True) -> None:
        self.process = self._start()
        self.b = self.process.ready()["api"]
        if is_met:
            self._meet()

    @property
    def directory(self) -> Path:
        return self._folder / "b"

    def copy(self, name: str) -> Path:
        """A copy of b's directory, which does not run."""
        copy = self._folder / name
        shutil.copytree(self.directory, copy, ignore=shutil.ignore_patterns("*.lock", "lock"))
        return copy

    def put_in_place(self, copy: Path) -> Path:
        """Put a directory in the place of b's; return where that is now."""
        before = self._folder / f"before {copy.name}"
        self.directory.rename(before)
        copy.rename(self.directory)
        return before


@pytest.fixture
def pair(up: Up, tmp_path: Path) -> Iterator[Pair]:
    yield Pair(up, tmp_path)


def test_a_node_on_an_older_copy_says_so_and_asks_before_it_answers(pair: Pair, tmp_path: Path) -> None:
    old = put(pair.b, "one", b"1")
    block_until(lambda: delivered(pair.b))
    pair.end_b()
    copy = pair.copy("copy")
    pair.start_b()
    lost = put(pair.b, "one", b"2")
    put(pair.a, "two", b"1")
    block_until(lambda: delivered(pair.a) and delivered(pair.b))
    pair.end_b()
    pair.put_in_place(copy)
    pair.start_b()
    block_until(lambda: "which is not in this store" in reasons(pair.b))
    assert content(pair.b, "one") == b"2"
    block_until(lambda: content(pair.b, "two") == b"1")
    assert put(pair.b, "one", b"3")["parents"] == [lost["digest"]]
    status, _ = call(pair.b, address("one"), method="PUT", body=b"4", **{"If-Match": f'"{old["digest"]}"'})
    assert status in (409, 412)

    def receipt(of: dict[str, Any]) -> tuple[int, bytes]:
        return call(pair.b, f"/v1/receipt?log={of['log']}&sequence={of['sequence']}")

    assert receipt(old)[0] == 200
    assert receipt(lost)[0] == 404
    block_until(lambda: "which is not in this store" not in reasons(pair.b), seconds=60)
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert "are sent to it again" in log, "node a says so"
    assert "which is not in this store" in log, "and so does node b"


def test_a_put_right_after_a_start_on_an_older_copy_is_made_on_what_the_other_node_has(pair: Pair) -> None:
    old = put(pair.b, "one", b"1")
    block_until(lambda: delivered(pair.b))
    pair.stop_b()
    copy = pair.copy("copy")
    pair.start_b()
    newer = put(pair.a, "one", b"2")
    block_until(lambda: delivered(pair.a))
    pair.stop_b()
    pair.put_in_place(copy)
    pair.start_b(is_met=False)
    receipt = put(pair.b, "one", b"3")
    if receipt["may_be_sibling"] is None:
        assert receipt["parents"] == [newer["digest"]]
    else:  # on a busy machine the other node may come too late
        assert receipt["parents"] == [old["digest"]]


def test_a_put_right_after_an_orderly_restart_waits_for_nobody(pair: Pair) -> None:
    put(pair.b, "one", b"1")
    block_until(lambda: delivered(pair.b))
    pair.stop_b()
    pair.end_a()
    pair.start_b(is_met=False)
    assert put(pair.b, "one", b"2")["may_be_sibling"] is None
    pair.end_b()
    pair.start_b(is_met=False)
    assert "was not ended in order" in put(pair.b, "one", b"3")["may_be_sibling"]


def test_what_a_clone_acknowledged_reaches_the_first_node_too(pair: Pair) -> None:
    put(pair.b, "one", b"1")
    block_until(lambda: delivered(pair.b))
    pair.end_b()
    original = pair.put_in_place(pair.copy("clone"))
    pair.start_b()
    for number in range(20):
        put(pair.a, f"n{number}", b"x")
    block_until(lambda: delivered(pair.a))
    pair.end_b()
    pair.put_in_place(original)
    pair.start_b()

    def has_all() -> bool:
        answers = [call(pair.b, address(f"n{number}") + "&consistency=local") for number in range(20)]
        return all(status == 200 for status, _ in answers)

    block_until(has_all)
    assert "which is not in this store" in reasons(pair.b)


def test_a_write_ahead_file_that_lost_its_end_is_noticed_by_the_other_node(pair: Pair) -> None:
    for number in range(10):
        put(pair.b, f"n{number}", bytes(6000))
    block_until(lambda: delivered(pair.b))
    pair.end_b()
    wal = pair.directory / "store.db-wal"
    with wal.open("r+b") as file:
        file.truncate(wal.stat().st_size - 12 * PAGE_BYTES)
    pair.start_b()
    block_until(lambda: "which is not in this store" in reasons(pair.b))
    assert content(pair.b, "n9") == bytes(6000), "it is asked for"


def test_a_node_that_was_killed_has_lost_nothing(pair: Pair) -> None:
    receipt = put(pair.b, "one", b"1")
    put(pair.a, "two", b"1")
    block_until(lambda: delivered(pair.a) and delivered(pair.b))
    for _ in range(2):
        pair.end_b()
        pair.start_b()
    assert "not in this store" not in reasons(pair.b)
    place = f"/v1/receipt?log={receipt['log']}&sequence={receipt['sequence']}"
    data = data_of(pair.b, place)
    assert (data["digest"], data["log"]) == (receipt["digest"], receipt["log"])


# -- two that run at the same time ------------------------------------------------------------------------------------


def start_on(host: LanHost, directory: Path, *bootstrap: str) -> str:
    """Start a node on a host of a site; return its peer id. Its API is at port 8080 of the host's loopback."""
    command = [
        *BZZZ, "up", "--json", "--open", "--listen", "/ip4/0.0.0.0/tcp/4001", "--api", "127.0.0.1:8080",
        "--data-dir", str(directory), *bootstrap,
    ]  # fmt: skip
    with directory.with_suffix(".log").open("ab") as stderr:
        process = host.namespace.start(
            command, stdout=subprocess.PIPE, stderr=stderr, stdin=subprocess.DEVNULL, env=environment()
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, directory.with_suffix(".log").read_text(encoding="utf-8")
    return str(json.loads(line)["peer_id"])


def ask(host: LanHost, path: str) -> bytes:
    return host.namespace.call(lambda: call("http://127.0.0.1:8080", path)[1])


@pytest.mark.deadline(180)
def test_twins_that_cannot_reach_each_other_are_told_by_a_node_that_sees_both(site: Site, tmp_path: Path) -> None:
    left, right = site.lan(), site.lan()
    third, one, two = site.host("third", left, right), site.host("one", left), site.host("two", right)
    start_on(third, tmp_path / "third")
    own = start_on(one, tmp_path / "one", "--bootstrap", f"/ip4/{third.interfaces[0].ip4}/tcp/4001")
    block_until(lambda: own in ask(third, "/v1/peers").decode())
    shutil.copytree(tmp_path / "one", tmp_path / "two", ignore=shutil.ignore_patterns("*.lock", "lock"))
    assert start_on(two, tmp_path / "two", "--bootstrap", f"/ip4/{third.interfaces[1].ip4}/tcp/4001") == own

    def says(host: LanHost, words: str) -> bool:
        return words in ask(host, "/health").decode()

    twin = "another node runs with this node's identity, at /ip4/10.77."
    block_until(lambda: says(one, twin) and says(two, twin), seconds=60)
    block_until(lambda: sum(says(host, "this one has no peers until that one ends") for host in (one, two)) == 1)
    block_until(lambda: sum(says(host, "that one stays out of the swarm") for host in (one, two)) == 1)
