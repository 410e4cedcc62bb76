"""js-libp2p as a peer on a LAN that is found, and finds, by mDNS."""

import json
import subprocess
from pathlib import Path
from typing import Any

from netsim.lan.site import LanHost


class JsMdnsPeer:
    """The process, on a host of a LAN. It writes a line for each peer that it finds or that connects."""

    def __init__(self, host: LanHost, packages: Path, output: Path) -> None:
        self._output = output
        with output.open("wb") as out:
            host.namespace.start(["node", "mdns_peer.mjs"], cwd=packages, stdout=out, stderr=subprocess.STDOUT)

    def lines(self) -> list[dict[str, Any]]:
        """What it wrote until now."""
        text = self._output.read_text(encoding="utf-8", errors="replace")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]

    @property
    def peer_id(self) -> str:
        """'' until it runs."""
        return next((line["peer"] for line in self.lines() if "peer" in line), "")

    def found(self) -> set[str]:
        return {line["found"] for line in self.lines() if "found" in line}

    def connected(self) -> set[str]:
        return {line["connected"] for line in self.lines() if "connected" in line}
