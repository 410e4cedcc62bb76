"""mDNS responder: speaks with the local network by zeroconf, on an asyncio loop of its own; the one door to zeroconf.

zeroconf opens the sockets, reads and writes packets, and answers questions about this node. Which peers are there, the
table decides (`discovery/mdns_table.py`). zeroconf hands records to its cache without their sender, so its record
manager is replaced by one that looks at the whole message first: what the table does not admit reaches no cache.

`run` blocks the thread that calls it; the finder (`discovery/mdns_finder.py`) gives it a thread. Nothing that comes
from the network raises out of it.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any

from zeroconf import Zeroconf
from zeroconf._dns import DNSPointer, DNSQuestion, DNSText
from zeroconf._handlers.record_manager import RecordManager
from zeroconf._protocol.incoming import DNSIncoming
from zeroconf._protocol.outgoing import DNSOutgoing
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from discovery.interfaces import Interface
from discovery.mdns_inbox import MdnsCounts, MdnsInbox, ServiceRecord
from discovery.mdns_records import TTL_SECONDS, announced, dialable_host, txt_data
from discovery.mdns_table import Change, MdnsTable

log = logging.getLogger(__name__)

PORT = 5353
RESCAN_SECONDS = 2.0
"""How often the interfaces of the machine are looked at."""
UPDATE_SECONDS = 5.0
CLOSE_SECONDS = 0.5
FIRST_QUESTION_SECONDS = (0.02, 0.12)
"""Drawn from this range, so that machines that start together do not ask together (RFC 6762)."""
DEAF_SECONDS = 5.0
"""The time within which this node's own first message comes back to it, where multicast works."""
_PTR, _IN, _QUERY = 12, 1, 0
_HINTS = {
    errno.EADDRINUSE: "UDP port 5353 is taken by a program that does not share it: stop it, or have it share the port",
    errno.EMFILE: "this process has no file descriptors left: raise its limit",
    errno.ENFILE: "this machine has no file descriptors left",
    errno.EPERM: "this machine's rules forbid it: allow UDP port 5353",
    errno.EAFNOSUPPORT: "this machine has no IPv4 or IPv6",
}


class MdnsFailed(Exception):
    """The responder cannot run now; the message says why."""


class _Messages(RecordManager):
    """zeroconf's record manager, behind a function that says whether it may see a message."""

    def __init__(self, zeroconf: Zeroconf, admit: Callable[[DNSIncoming], bool]) -> None:
        super().__init__(zeroconf)
        self._admit = admit

    def async_updates_from_response(self, msg: DNSIncoming) -> None:
        if self._admit(msg):
            super().async_updates_from_response(msg)


class MdnsResponder:
    """`service` is asked for, and answered as `instance` (a DNS label).

    `report` is called on the responder's thread; False: the report was not taken. `interfaces` says which interfaces
    have some of these hosts. `announce` and `stop` may be called from any thread.
    """

    def __init__(
        self,
        table: MdnsTable,
        *,
        service: str,
        instance: str,
        chance: Callable[[], float],
        interfaces: Callable[[Collection[str]], tuple[Interface, ...]],
        report: Callable[[Change], bool],
    ) -> None:
        self.counts = MdnsCounts()
        self.is_up = False
        self.fault = ""
        """Why nobody is heard now although it is up; '' when all is well."""
        self.interfaces: tuple[Interface, ...] = ()
        """Those in use."""
        self._table = table
        self._service = service
        self._name = f"{instance}.{service}"
        self._chance = chance
        self._interfaces_of = interfaces
        self._inbox = MdnsInbox(table, service=service, own_name=self._name, report=report, counts=self.counts)
        self._addresses: tuple[str, ...] = ()
        self._is_stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()

    def announce(self, addresses: Sequence[str]) -> None:
        """Others shall be told these addresses from now on."""
        self._addresses = announced(addresses)
        self._wake_up()

    def stop(self) -> None:
        """End `run`, now or before it begins, until `allow`; it says goodbye first."""
        self._is_stopping = True
        self._wake_up()

    def allow(self) -> None:
        """`run` may be called again."""
        self._is_stopping = False

    def _wake_up(self) -> None:
        if loop := self._loop:
            with suppress(RuntimeError):  # it has just ended
                loop.call_soon_threadsafe(self._wake.set)

    def run(self) -> None:
        """Find and be found until stopped. Raises `MdnsFailed`."""
        try:
            asyncio.run(self._run())
        except OSError as error:
            why = error.strerror or str(error)
            raise MdnsFailed(_HINTS.get(error.errno or 0, why)) from error
        except Exception as error:
            log.debug("mDNS failed", exc_info=True)
            raise MdnsFailed(f"{type(error).__name__}: {error}") from error
        finally:
            self._loop = None

    async def _run(self) -> None:
        logging.getLogger("zeroconf").setLevel(logging.CRITICAL)  # what matters of its faults is in `fault`
        self._wake = asyncio.Event()
        loop = self._loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_failure)
        interfaces = self._scan()
        _try_port()
        zeroconf = Zeroconf(interfaces=_choices(interfaces), use_asyncio=True)
        zeroconf.record_manager = _Messages(zeroconf, self._admit)  # before its sockets have readers
        live = _Live(zeroconf, interfaces, loop.time(), self.counts.own)
        least, most = FIRST_QUESTION_SECONDS
        self._table.ask_soon(loop.time() + least + self._chance() * (most - least))
        try:
            await zeroconf.async_wait_for_start()
            self.is_up = True
            while not self._is_stopping:
                await self._turn(live, loop.time())
                wait = min(RESCAN_SECONDS, self._table.question_due() - loop.time())
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), max(0.0, wait))
                self._wake.clear()
        finally:
            self.is_up, self.interfaces = False, ()
            await _close(zeroconf)

    async def _turn(self, live: "_Live", now: float) -> None:
        """Do what is due."""
        await self._follow_interfaces(live, now)
        await self._follow_addresses(live)
        self._inbox.hand_over(self._table.expire(now))
        if now >= self._table.question_due():
            self._ask(live, now)
        self.fault = self._judge(live, now)

    def _judge(self, live: "_Live", now: float) -> str:
        if not live.interfaces:
            return "no network interface of this machine has an address at which others can dial this node"
        is_deaf = self.counts.own <= live.own_before
        if live.announced and is_deaf and now - live.since >= DEAF_SECONDS:
            names = ", ".join(interface.name for interface in live.interfaces)
            return f"this node's own messages to UDP port 5353 do not come back on {names}: is multicast blocked there?"
        return ""

    # -- this machine -------------------------------------------------------------------------------------------------

    def _scan(self) -> tuple[Interface, ...]:
        return self._interfaces_of({dialable_host(address) for address in self._addresses})

    async def _follow_interfaces(self, live: "_Live", now: float) -> None:
        """Let zeroconf use the interfaces that the machine has now."""
        found = self._scan()
        self.interfaces = found
        if found == live.interfaces and live.is_complete():
            return
        kept = [each for each in found if not any(_is_replaced(old, each) for old in live.interfaces)]
        async with asyncio.timeout(UPDATE_SECONDS):
            if len(kept) < len(found):
                await live.zeroconf.async_update_interfaces(_choices(kept))
            await live.zeroconf.async_update_interfaces(_choices(found))
        if found != live.interfaces:
            log.info("mDNS on %s", ", ".join(each.name for each in found) or "no interface")
        if set(found) - set(live.interfaces):
            self._table.ask_soon(now)
            live.since, live.own_before = now, self.counts.own
        live.interfaces = found

    async def _follow_addresses(self, live: "_Live") -> None:
        """Let zeroconf answer with the addresses that this node has now."""
        addresses = self._addresses
        if addresses == live.announced:
            return
        live.announced = addresses
        if not addresses:
            if live.info is not None:
                live.tasks.append(await live.zeroconf.async_unregister_service(live.info))
                live.info = None
            return
        port = int(addresses[0].split("/")[4])
        info = AsyncServiceInfo(
            self._service,
            self._name,
            port=port,
            properties=txt_data(addresses),
            server=self._name,
            host_ttl=TTL_SECONDS,
            other_ttl=TTL_SECONDS,
        )
        if live.info is None:  # the name is random: nobody else has it, and no probe is needed
            task = await live.zeroconf.async_register_service(info, cooperating_responders=True)
        else:
            task = await live.zeroconf.async_update_service(info)
        live.info = info
        live.tasks.append(task)

    def _ask(self, live: "_Live", now: float) -> None:
        """Ask who is there. At the start also say again that this node is: zeroconf does so three times within half a
        second, and drops what it heard word for word within the last second, as from a node that has just ended."""
        if self._table.is_starting and live.info is not None:
            live.zeroconf.async_send(live.zeroconf.generate_service_broadcast(live.info, None))
        question = DNSOutgoing(_QUERY)
        question.add_question(DNSQuestion(self._service, _PTR, _IN))
        for name, seconds in self._table.asked(now):
            question.add_answer_at_time(DNSPointer(self._service, _PTR, _IN, int(seconds), name, 0.0), 0.0)
        live.zeroconf.async_send(question)
        self.counts.questions += 1

    # -- the others ---------------------------------------------------------------------------------------------------

    def _admit(self, message: DNSIncoming) -> bool:
        """Read a message. False: zeroconf has no use for it, or may not see it."""
        assert self._loop is not None
        sender, now = _plain(message.source[0] if message.source else ""), self._loop.time()
        try:
            return self._inbox.read(self._answers(message), sender, now)
        except Exception as error:  # whatever a stranger sends must not end the responder
            self._inbox.failed(error, sender, now)
            return False

    def _answers(self, message: DNSIncoming) -> Iterator[ServiceRecord]:
        for record in message.answers():
            if isinstance(record, DNSText):
                yield ServiceRecord(record.key, record.ttl, record.text)
            elif isinstance(record, DNSPointer) and record.key == self._service:
                yield ServiceRecord(record.alias.lower(), record.ttl)


class _Live:
    """A zeroconf that runs, and what it was told."""

    def __init__(self, zeroconf: Zeroconf, interfaces: tuple[Interface, ...], now: float, own: int) -> None:
        self.zeroconf = zeroconf
        self.interfaces = interfaces
        self.announced: tuple[str, ...] = ()
        self.info: AsyncServiceInfo | None = None
        self.tasks: list[Any] = []
        """Repeated announcements under way; asyncio keeps no task alive by itself."""
        self.since = now
        """When it started, or got its last interface."""
        self.own_before = own
        """This node's own messages that had come back by then."""

    def is_complete(self) -> bool:
        """Whether each interface has its sockets: an address that is being checked for duplicates has none yet."""
        return len(self.zeroconf.engine.senders) >= len(_choices(self.interfaces))


def _try_port() -> None:
    """Raise OSError when the port is taken: zeroconf, which finds that out as well, leaves its socket open then."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("", PORT))


async def _close(zeroconf: Zeroconf) -> None:
    """Say goodbye, and close the sockets."""
    with suppress(Exception):  # it ends anyway, and a broken network must not keep it
        async with asyncio.timeout(CLOSE_SECONDS):
            if goodbye := zeroconf.generate_unregister_all_services():
                zeroconf.async_send(goodbye)
            await AsyncZeroconf(zc=zeroconf).async_close()


def _choices(interfaces: Sequence[Interface]) -> list[str | int]:
    """The interfaces as zeroconf takes them: an IPv4 address, an index for IPv6."""
    by_ip4: list[str | int] = [each.ip4 for each in interfaces if each.ip4]
    return by_ip4 + [each.index for each in interfaces if each.has_ip6]


def _is_replaced(old: Interface, new: Interface) -> bool:
    """The same address on another device: sockets of the one that is gone are deaf, and zeroconf would keep them."""
    return bool(new.ip4) and old.ip4 == new.ip4 and old.index != new.index


def _plain(host: str) -> str:
    """A sender's address without the zone, and without the prefix of IPv4 on an IPv6 socket."""
    return host.partition("%")[0].removeprefix("::ffff:")


def _log_failure(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.debug("mDNS: %s", context.get("message"), exc_info=context.get("exception"))
