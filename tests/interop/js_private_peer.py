"""js-libp2p as a peer in a private network, on loopback."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from protocols.network_key import key_file


class JsPrivatePeer:
    """The process. It writes a line for its own addresses, and for what comes of its dial and its connections."""

    def __init__(self, output: Path) -> None:
        self._output = output

    def lines(self) -> list[dict[str, Any]]:
        """What it wrote until now."""
        text = self._output.read_text(encoding="utf-8", errors="replace")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]

    @property
    def addresses(self) -> tuple[str, ...]:
        """() until it runs."""
        return next((tuple(line["addresses"]) for line in self.lines() if "addresses" in line), ())

    def connected(self) -> set[str]:
        return {line["connected"] for line in self.lines() if "connected" in line}

    def failures(self) -> list[str]:
        """Why its dial failed."""
        return [line["failed"] for line in self.lines() if "failed" in line]


@contextmanager
def js_private_peer(packages: Path, folder: Path, key: bytes, *, dials: str = "") -> Iterator[JsPrivatePeer]:
    """A peer in the private network of a key, until the block ends. It dials a multiaddr, if one is given."""
    output, swarm_key = folder / "js", folder / "swarm.key"
    swarm_key.write_text(key_file(key), encoding="ascii")
    command = ["node", "private_peer.mjs", str(swarm_key), *filter(None, [dials])]
    with output.open("wb") as out:
        process = subprocess.Popen(command, cwd=packages, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield JsPrivatePeer(output)
    finally:
        process.kill()
        process.wait()
