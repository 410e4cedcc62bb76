"""Two running nodes with one identity: one of them backs off, and both say so."""

import json
import shutil
from pathlib import Path
from typing import Any

from protocols.policy.twin import FORGET_SECONDS
from tests.live.node_processes import Up, call, connected, data_of
from tests.until import block_until


def test_of_two_nodes_with_one_identity_one_backs_off_and_both_say_so(up: Up, tmp_path: Path) -> None:
    third = up(data="third").ready()
    first = up("--bootstrap", third["multiaddrs"][0], data="first")
    api = {"first": first.ready()["api"], "third": third["api"]}
    block_until(lambda: connected(api["first"]) == 1)
    shutil.copytree(tmp_path / "first", tmp_path / "copy", ignore=shutil.ignore_patterns("*.lock"))
    copy = up("--bootstrap", third["multiaddrs"][0], data="copy")
    ready = copy.ready()
    api["copy"] = ready["api"]
    assert ready["peer_id"] == data_of(api["first"], "/v1/node")["peer_id"]

    def names(of: str, words: str) -> bool:
        return words in _health(api[of])["text"]

    both = ("first", "copy")
    block_until(
        lambda: all(names(each, "another node runs with this node's identity, at /ip4/") for each in both), seconds=40
    )
    block_until(lambda: sum(names(each, "this one has no peers until that one ends") for each in both) == 1)
    block_until(lambda: sum(names(each, "that one stays out of the swarm") for each in both) == 1)
    out, stays = both if names("first", "this one has no peers") else reversed(both)  # the later one, but for a race
    assert _health(api["first"])["status"] == _health(api["copy"])["status"] == "degraded"
    block_until(lambda: connected(api[stays]) == 1)
    assert connected(api[out]) == 0
    assert first.log.read_text(encoding="utf-8").count("another node runs with this node's identity, at /ip4/") >= 2

    assert {"first": first, "copy": copy}[stays].stop() == 0
    block_until(lambda: connected(api[out]) == 1, seconds=FORGET_SECONDS + 25)
    assert "identity" not in _health(api[out])["text"]


def _health(api: str) -> dict[str, Any]:
    _, body = call(api, "/health")
    payload = json.loads(body)
    status = payload.get("response", payload.get("error", {}))
    return {"text": body.decode(), "status": status.get("data", status.get("details", {})).get("status")}
