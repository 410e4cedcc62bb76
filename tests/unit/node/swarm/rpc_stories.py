"""Stories over an `Rpc`: its network, its service, and callers in the background."""

from collections.abc import Awaitable, Callable
from typing import Any

import trio
import trio.testing

from node.swarm.limits import SwarmLimits
from node.swarm.rpc import Rpc
from protocols.errors import BzzzError
from protocols.messages import Ping, Pong, Reply
from protocols.ucxl import key_of
from tests.unit.one_end import OneEnd, RecordingService, rpc_over

Clock = trio.testing.MockClock
KEY = key_of("ucxl://a:b@c:d/*^")
PONG = Pong(1, 0, 0)


class Caller:
    """A call in the background, and its outcome."""

    def __init__(
        self, nursery: trio.Nursery, rpc: Rpc, peer: str, request: Any = None, *, timeout: float = 1.0
    ) -> None:
        self.outcome: Reply | BzzzError | None = None
        self.ended_at: float | None = None
        self.over = trio.Event()
        nursery.start_soon(self._call, rpc, peer, request or Ping(), timeout)

    async def _call(self, rpc: Rpc, peer: str, request: Any, timeout: float) -> None:
        try:
            self.outcome = await rpc.call(peer, request, timeout=timeout)
        except BzzzError as error:
            self.outcome = error
        self.ended_at = trio.current_time()
        self.over.set()


Story = Callable[[OneEnd, RecordingService, Rpc, trio.Nursery], Awaitable[None]]


async def run(story: Story, *peers: str, limits: SwarmLimits | None = None) -> None:
    """Run a story over an `Rpc`, with these peers connected."""
    net, service = OneEnd(), RecordingService()
    async with rpc_over(net, service, limits=limits) as rpc, trio.open_nursery() as nursery:
        net.come(*peers)
        await story(net, service, rpc, nursery)
        nursery.cancel_scope.cancel()
