"""`bzzz`, with a topic that it hears: no node hears any of its own accord yet, and nobody hearing, GossipSub is off."""

from typing import Any

from node import cli
from node.swarm.libp2p import host

TOPIC = "attacks"
"""The same as `attacks.on_topics.TOPIC`; the process that runs this file does not know the attacks."""


class Hearing(host.Host):
    """The host, with one topic."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.pubsub.subscribe(TOPIC, lambda author, data: None)


if __name__ == "__main__":
    host.Host = Hearing  # type: ignore[misc]  # every node of this process is one
    cli.main()
