"""Runs one node in this process: builds its environment, starts it, handles signals, and ends it.

Resources that may be unavailable are taken in an order, exclusive and cheap ones first: the port of the API (those of
the swarm are tried here too, so that a port in use is refused before anything is made), the data directory and its
lock, the identity, the store; then the swarm (importing libp2p takes a second or two), and the server last. After a
failure the earlier resources are released, and the reason is one line.
"""

import os
import random
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
import trio

from discovery.finder import AdvertisedNode, Finder
from node import app, logs
from node.api.http_metrics import HttpMetrics
from node.api.limits import ServerLimits
from node.api.limits import within as api_within
from node.api.listen import BindFailed, bind
from node.api.middleware import ApiAccess, Middleware
from node.api.router import router
from node.api.routes import RESOURCES
from node.api.server import serve
from node.config import values
from node.config.settings import Settings
from node.environment import Environment
from node.node import Node
from node.periodic import keep_running
from node.process import descriptors, gc, threads
from node.process.descriptors import TooFewDescriptors
from node.process.identity import FILE_NAME as KEY_FILE_NAME
from node.process.identity import IdentityRefused, keep, load_or_make
from node.services.control.audit_file import FILE_NAME, AuditFile, AuditFileRefused
from node.services.control.config_reload import ConfigReload
from node.store.errors import StoreRefused
from node.store.sqlite.connection import refuse_long_path
from node.store.sqlite.file_lock import FileLock, lock_directory
from node.store.sqlite.owner import Owner
from node.store.sqlite.store import SqliteStore
from node.swarm.base import ListenFailed, Network
from node.swarm.libp2p.listen import require_free
from node.swarm.limits import USUAL, SwarmLimits, within
from node.swarm.peer_policy import PeerPolicy
from protocols.keys import PrivateKey

STORE_NAME = "store.db"
STOP_SECONDS_MAX = 1.5
"""How long the end may take before everything still under way is cancelled."""

FIRST_HELLO_SECONDS_MAX = 1.0
"""How long a start that may follow a loss waits for the first member, which knows of it, before it says ready."""
LEAVE_SECONDS_MAX = 0.5
"""How long the node may take to tell the others that it leaves."""

_Refusal = (BindFailed, IdentityRefused, StoreRefused, AuditFileRefused, ListenFailed, TooFewDescriptors)
_ALONE = "it listens on loopback alone: '--open', or a network key, lets nodes of other machines in"
_log = structlog.get_logger("bzzz")


class NotStarted(Exception):
    """The node did not start, and nothing is left running; the message is one line that says why, and what to do."""


class NodeFailed(Exception):
    """The node ended by itself, which is a defect; the log has the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The facts for a person or a script once the node answers."""

    name: str
    backend: str
    peer_id: str
    multiaddrs: tuple[str, ...]
    api: str
    note: str
    """What others cannot do, or ''."""


def run(settings: Settings, on_ready: Callable[[Ready], None], reload: Callable[[], Settings]) -> None:
    """Run a node until SIGINT or SIGTERM, or until its terminal closes. Raises `NotStarted` or `NodeFailed`.

    `on_ready` is called once, when the node is ready. `reload` reads the configuration again when one of its files has
    changed or SIGHUP comes to a node without a terminal, and raises `ConfigError`.
    """
    logs.configure(settings.log_format, settings.log_level)
    try:
        with ExitStack() as stack:
            listens = 0 if settings.backend == "mock" else len(settings.listen)
            budget = descriptors.divide(
                descriptors.raised_limit(),
                is_open=descriptors.open_now(),
                listens=listens,
                has_mdns=settings.is_on_network,
            )
            listening = stack.enter_context(closing(bind(settings.api)))
            if settings.backend != "mock":
                require_free(settings.listen)
            lock = stack.enter_context(_data_dir(settings.data_dir))
            key, store = _identity_and_store(settings.data_dir)
            stack.enter_context(closing(store))
            store.guard(lock.path, settings.data_dir / KEY_FILE_NAME)
            audit_storage = stack.enter_context(closing(AuditFile(settings.data_dir / FILE_NAME)))
            peer_policy = PeerPolicy(allow=settings.allow, deny=settings.deny)
            limits = within(USUAL, sockets=budget.swarm)
            environment = Environment(
                key=key,
                network=None if settings.backend == "mock" else _network(key, settings, peer_policy, limits),
                store=store,
                now_ms=lambda: time.time_ns() // 1_000_000,
                chance=random.SystemRandom().random,
                peer_policy=peer_policy,
                limits=limits,
                audit_storage=audit_storage,
                mdns=_mdns if settings.is_on_network else None,
            )
            trio.run(
                _live,
                environment,
                settings,
                listening,
                api_within(ServerLimits(), sockets=budget.api),
                on_ready,
                reload,
            )
    except Exception as error:
        if isinstance(refusal := _innermost(error), _Refusal):
            raise NotStarted(" ".join(str(refusal).split())) from None
        _log.exception("the node failed")
        raise NodeFailed("the node failed, which is a defect; the log above has the reason") from None


@contextmanager
def _data_dir(path: Path) -> Iterator[FileLock]:
    """The locked data directory; a missing one is made, for its owner alone."""
    refuse_long_path(path / STORE_NAME)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.listdir(path)
    except OSError as error:
        raise StoreRefused(
            f"the data directory {path} cannot be used: {error.strerror or error}; name another with --data-dir"
        ) from error
    lock = lock_directory(path)
    try:
        yield lock
    finally:
        lock.release()


def _identity_and_store(data_dir: Path) -> tuple[PrivateKey, SqliteStore]:
    """The key of a data directory, and the store that belongs to it; what is missing is made."""
    key, is_new = load_or_make(data_dir, seed=os.urandom(32))
    store = SqliteStore.open(
        data_dir / STORE_NAME, random_id=os.urandom(8).hex(), owner=Owner(peer_id=key.peer_id, is_new=is_new)
    )
    try:
        keep(data_dir)
    except IdentityRefused:
        store.close()
        raise
    return key, store


def _network(key: PrivateKey, settings: Settings, peer_policy: PeerPolicy, limits: SwarmLimits) -> Network:
    from node.swarm.libp2p.host import Host  # imported late: it imports libp2p

    return Host(key, settings.listen, network_key=settings.network_key, peer_policy=peer_policy, limits=limits)


def _mdns(this_node: AdvertisedNode) -> Finder:
    from discovery.mdns_finder import MdnsFinder  # imported late: it imports zeroconf and asyncio

    return MdnsFinder(this_node, instance=os.urandom(16).hex(), chance=random.SystemRandom().random)


async def _live(
    environment: Environment,
    settings: Settings,
    listening: socket.socket,
    api_limits: ServerLimits,
    on_ready: Callable[[Ready], None],
    reload: Callable[[], Settings],
) -> None:
    """Start the node, then its API; end them in the reverse order."""
    hangup_ends = _has_terminal() and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # For the time after the receivers below: another Ctrl-C while the process closes must not kill it.
        signal.signal(number, signal.SIG_IGN)
    with (
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals,
        trio.open_signal_receiver(signal.SIGHUP) as hangups,
    ):
        async with trio.open_nursery() as services:
            stopping = trio.Event()
            services.start_soon(_stop_on_signal, signals, stopping, services.cancel_scope)
            if hangup_ends:
                services.start_soon(_stop_on_signal, hangups, stopping, services.cancel_scope)
            services.start_soon(keep_running, gc.run, "the look at this process's memory")
            node = await services.start(app.run, environment, settings)
            reloader = ConfigReload(
                settings,
                reload,
                flags=node.flags,
                peer_policy=node.peer_policy,
                audit=node.audit,
                capabilities=node.capabilities,
            )
            services.start_soon(keep_running, reloader.run, "the look at the configuration files")
            if not hangup_ends:
                services.start_soon(_reload_on_signal, hangups, reloader)
            if node.network is not None:
                with trio.move_on_after(FIRST_HELLO_SECONDS_MAX):
                    await node.members.reconciliation.first_heard()
            async with trio.open_nursery() as front:
                handler = _with_middleware(node, settings)
                serving = partial(serve, handler, listening, now_ms=node.now_ms, stopping=stopping, limits=api_limits)
                url = await front.start(serving)
                gc.freeze()
                threads.shorten_switch_interval()
                ready = _ready(node, settings, url)
                if not stopping.is_set():
                    on_ready(ready)
            with trio.move_on_after(LEAVE_SECONDS_MAX):
                await node.leave()
            services.cancel_scope.cancel()
    _log.info("stopped")


def _ready(node: Node, settings: Settings, url: str) -> Ready:
    """The facts of a node that answers; they are in the log too."""
    ready = Ready(
        name=node.name,
        backend=node.dht.backend.value,
        peer_id=node.peer_id,
        multiaddrs=node.addresses(),
        api=url,
        note=_ALONE if node.addresses() and not settings.is_on_network else "",
    )
    _log.info("ready", peer_id=ready.peer_id, multiaddrs=ready.multiaddrs, api=url, backend=ready.backend)
    if ready.note:
        _log.info(ready.note)
    return ready


def _with_middleware(node: Node, settings: Settings) -> Middleware:
    host, _ = settings.api_host_port
    token = settings.api_token.reveal() if settings.api_token else None
    access = ApiAccess(is_loopback=values.is_loopback(host), token=token)
    return Middleware(router(node), access, now_ms=node.now_ms, metrics=HttpMetrics.of(node, RESOURCES))


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal, whose end the kernel or the shell reports by SIGHUP.

    A process has none under a service manager, in its own session (`setsid`), or in a container without `-t`. `nohup`
    leaves the terminal and has SIGHUP ignored.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


async def _stop_on_signal(signals: AsyncIterator[int], stopping: trio.Event, scope: trio.CancelScope) -> None:
    """End gracefully at the first signal; cancel everything at the second, or after `STOP_SECONDS_MAX`."""
    async for number in signals:
        _log.info("stopping", signal=signal.Signals(number).name)
        if stopping.is_set():
            scope.cancel()
        stopping.set()
        scope.deadline = trio.current_time() + STOP_SECONDS_MAX


async def _reload_on_signal(hangups: AsyncIterator[int], reloader: ConfigReload) -> None:
    async for _ in hangups:
        _log.info("reading the configuration again", signal="SIGHUP")
        await keep_running(partial(reloader.reload, "SIGHUP"), "the reading of the configuration")


def _innermost(error: BaseException) -> BaseException:
    """The error inside nested exception groups of one, which nurseries make."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
