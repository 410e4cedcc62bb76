"""Runs a node in an environment: starts the tasks of its parts in their order, and ends them together.

`node/composition.py` makes the parts. Nothing here or below depends on which environment it is.
"""

from dataclasses import replace
from functools import partial

import trio

from node.composition import Base, make_base, make_dht, make_discovery, make_mock, make_node, make_swarm
from node.config.settings import Settings
from node.dht.base import Backend
from node.dht.dispatch import DispatchDHT
from node.environment import Environment
from node.node import Node
from node.periodic import keep_running
from node.services.control.flag_effects import apply_to_breaker
from node.services.observe.scrubber import Scrubber
from node.services.reads.reconciler import Reconciler
from node.services.writes.peer_server import PeerServer
from node.services.writes.reissue import Reissuer
from node.services.writes.reprovider import Reprovider
from node.swarm.base import Network


async def run(
    environment: Environment, settings: Settings, *, task_status: trio.TaskStatus[Node] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run a node until cancelled. `started` gives the `Node` once it answers calls. Raises `ListenFailed` before."""
    async with trio.open_nursery() as nursery:
        await nursery.start(environment.store.run)
        try:
            await _run_over_store(environment, settings, task_status)
        finally:
            nursery.cancel_scope.cancel()


async def _run_over_store(environment: Environment, settings: Settings, task_status: trio.TaskStatus[Node]) -> None:
    base = make_base(environment, settings)
    async with trio.open_nursery() as nursery:
        await base.flags.begin()
        nursery.start_soon(keep_running, base.flags.run, "the end of overrides")
        nursery.start_soon(keep_running, base.audit.guard_file, "the look at the audit log")
        if environment.network is None:
            await _run_alone(base, task_status)
        else:
            await _run_in_swarm(base, environment.network, task_status)


async def _run_alone(base: Base, task_status: trio.TaskStatus[Node]) -> None:
    dht = DispatchDHT(
        base.flags.current,
        lambda flags: {Backend.MOCK: make_mock(base, flags)},
        store=base.environment.store,
        call_metrics=base.call_metrics,
    )
    base.flags.subscribe(lambda _, after: dht.use_flags(after))
    node = make_node(base, dht, None, None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.admission.run)
        nursery.start_soon(node.resolver.run)
        nursery.start_soon(node.monitor.run)
        nursery.start_soon(node.risk.run)
        nursery.start_soon(Scrubber(base.environment.store, dht).run)
        task_status.started(node)


async def _run_in_swarm(base: Base, network: Network, task_status: trio.TaskStatus[Node]) -> None:
    swarm = make_swarm(base, network)
    dht = make_dht(base, swarm)
    discovery = make_discovery(base, swarm, dht)
    node = make_node(base, dht, swarm, discovery)
    apply_to_breaker(swarm.breaker, replace(base.flags.current, override=None), base.flags.current)
    environment = base.environment
    reissuer = Reissuer(
        environment.store,
        node.author,
        base.members,
        environment.key,
        refusals=swarm.refusals,
        now_ms=environment.now_ms,
    )
    server = PeerServer(
        environment.store,
        discovery.neighbours,
        verified=environment.verified,
        now_ms=environment.now_ms,
        on_frame=swarm.breaker.heard,
        readable=base.readable,
        peer_policy=environment.peer_policy,
        on_sequence=swarm.log_continuity.heard,
    )
    reprovider = Reprovider(
        environment.store,
        base.members,
        swarm.kademlia,
        interval_seconds=base.settings.provider_interval_hours * 3600.0,
        now_ms=environment.now_ms,
        is_on=lambda: dht.asks_swarm,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(swarm.rpc.run, server)
        for task in (
            swarm.kademlia.run,
            swarm.holder_search.run,
            swarm.delivery.run,
            swarm.breaker.run,
            swarm.handoff.run,
            swarm.assignment.run,
            swarm.absences.run,
            swarm.replicator.run,
            reissuer.run,
            reprovider.run,
            dht.run,
            partial(keep_running, swarm.auditor.run, "the audit of the breaker"),
            node.admission.run,
            node.monitor.run,
            node.risk.run,
            node.resolver.run,
            Scrubber(environment.store, dht).run,
            Reconciler(environment.store, dht, base.members).run,
        ):
            nursery.start_soon(task)
        await nursery.start(discovery.neighbours.run)
        task_status.started(node)
