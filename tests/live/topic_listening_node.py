"""`bzzz` with a subscription to one more topic than that of announcements, which takes any message."""

from typing import Any

from node import cli
from node.swarm.libp2p import host

TOPIC = "attacks"
"""The same as `attacks.on_topics.TOPIC`; the process that runs this file cannot import the attacks."""


class SubscribedHost(host.Host):
    """The host, with one topic."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.pubsub.subscribe(TOPIC, lambda author, data: None)


if __name__ == "__main__":
    host.Host = SubscribedHost  # type: ignore[misc]  # every node of this process is one
    cli.main()
