"""`docs/http-api.md` is true and complete: its examples run, and each route, parameter, header and code is in it."""

import ast
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

import node.api
from netsim.virtual.nodes import VirtualSwarm
from netsim.virtual.scheduler import run_virtual
from node.api import content, query, routes
from node.api.limits import HEADERS_BYTES_MAX, RequestLimits, ServerLimits
from node.api.middleware import OPEN_PATHS, ApiAccess, Middleware
from node.api.paths import Paths
from node.api.refusal import TooSlow
from node.api.router import router
from node.api.routes import RESOURCES
from node.config import changes
from node.config.settings import Settings
from node.services.writes import admission
from node.store.versions import HEADS_MAX
from protocols import clock, errors, header, ucxl
from protocols.keys import PrivateKey
from protocols.policy.breaker import BreakerState
from tests.unit.node.api.direct import Direct
from tests.unit.node.api.examples import Example, Reader, examples, tables
from tests.until import until

DOCUMENT = (Path(__file__).parents[4] / "docs" / "http-api.md").read_text(encoding="utf-8")
NAMES = ("ada", "bob", "eve")
TOKEN = "s3cret"


class Story:
    """Three nodes that have met; the examples talk to the first one."""

    def __init__(self, swarm: VirtualSwarm) -> None:
        self._swarm = swarm
        self._others = swarm.peers("bob", "eve")
        self.node = swarm["ada"].running
        self.token: str | None = None
        self.before: dict[str, Callable[[], Awaitable[None]]] = {
            "the other nodes are gone": self._gone,
            "the other nodes freeze": self._freeze,
            "the other nodes are back": self._back,
            "bob refuses a write for good": self._refuse,
            "the node has a token": self._token,
            "the node has no token": self._no_token,
        }

    @classmethod
    @asynccontextmanager
    async def begun(cls) -> AsyncIterator["Story"]:
        async with VirtualSwarm.open(1, NAMES, settings=Settings()) as swarm:
            story = cls(swarm)
            await story._met()
            yield story

    async def run(self, text: str, reader: Reader) -> list[tuple[Example, httpx.Response]]:
        """Run the examples of a text; each with its answer."""
        answers = []
        for example in examples(text):
            if example.before is not None:
                await self.before[example.before]()
            app = Middleware(
                router(self.node), ApiAccess(is_loopback=self.token is None, token=self.token), now_ms=self.node.now_ms
            )
            async with httpx.AsyncClient(transport=Direct(app)) as client:
                client.headers = httpx.Headers({"Accept": "*/*"})
                answers.append((example, await reader.run(example, client)))
        return answers

    async def _met(self) -> None:
        await until(lambda: sum(peer.is_connected for peer in self.node.peers()) == len(self._others))

    async def _gone(self) -> None:
        await self._freeze()
        await trio.sleep(30)

    async def _freeze(self) -> None:
        self._swarm.net.partition(self._swarm.peers("ada"), self._others)

    async def _back(self) -> None:
        self._swarm.net.heal()
        await self._met()
        await until(lambda: not self.node.store.pending().count)
        await until(lambda: self.node.breaker is not None and self.node.breaker.state is BreakerState.CLOSED)
        await trio.sleep(5)  # until every peer has said that it has no hints for this node, so that it may answer reads

    async def _refuse(self) -> None:
        bob = self._others[0]
        (hint,) = [hint for hint in await self.node.store.hints(is_refused=False) if hint.holder == bob]
        await self.node.store.quarantine_hint(bob, hint.sequence, refusal="the signature is wrong")

    async def _token(self) -> None:
        self.token = TOKEN

    async def _no_token(self) -> None:
        self.token = None


def in_story(text: str, reader: Reader) -> list[tuple[Example, httpx.Response]]:
    async def run() -> list[tuple[Example, httpx.Response]]:
        async with Story.begun() as story:
            return await story.run(text, reader)

    return run_virtual(1, run)


# -- its examples are true --------------------------------------------------------------------------------------------


def test_every_example_shows_what_a_node_answers() -> None:
    answers = in_story(DOCUMENT, Reader())
    paths = Paths(RESOURCES)
    shown = {(example.section, example.method, paths.find(example.path)) for example, _ in answers}
    for path, methods in RESOURCES.items():
        for method in methods:
            assert (f"{method} {path}", method, path) in shown, f"{method} {path} has no example in its section"


@pytest.mark.parametrize(
    ("shown", "part"),
    [
        ("HTTP/1.1 201\n…\n\n…", "answered 200"),
        ("HTTP/1.1 200\nucxl-author: …\n…\n\n…", "there is no ucxl-author"),
        ("HTTP/1.1 200\ncontent-type: text/plain\n…\n\n…", "content-type is 'application/json'"),
        ("HTTP/1.1 200\ncontent-type: application/json\n\n…", "answered 200"),
        ('HTTP/1.1 200\n…\n\n{"response": {"data": {"ready": false}, "…": "…"}}', ".response.data.ready is True"),
        ('HTTP/1.1 200\n…\n\n{"response": {"data": {"ready": true}}}', ".response is"),
        ('HTTP/1.1 200\n…\n\n{"response": {"data": {"red": true, "…": "…"}, "…": "…"}}', ".response.data is"),
        ('HTTP/1.1 200\n…\n\n{"response": {"message": "no", "…": "…"}}', ".response.message is 'ok'"),
    ],
)
def test_an_example_that_is_not_true_is_found(shown: str, part: str) -> None:
    with pytest.raises(BaseExceptionGroup) as raised:
        in_story(f"```console\n$ curl -i http://127.0.0.1:8080/ready\n{shown}\n```", Reader())
    (error,) = leaves(raised.value)
    assert isinstance(error, AssertionError)
    assert part in str(error)


def test_an_id_of_the_document_stands_for_one_of_the_run() -> None:
    ids = [PrivateKey.from_seed(bytes([number] * 32)).peer_id for number in (1, 2)]
    command = "$ curl -s http://127.0.0.1:8080/v1/bootstrap | jq .response.data.peer_id"
    one, other = (f'{command}\n"{each}"\n' for each in ids)
    in_story(f"```console\n{other}{other}```", Reader())
    with pytest.raises(BaseExceptionGroup):
        in_story(f"```console\n{one}{other}```", Reader())


def leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error


# -- nothing is missing -----------------------------------------------------------------------------------------------

TABLES = tables(DOCUMENT)


def names(cell: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def rows(section: str, *heads: str) -> list[list[str]]:
    """The rows of the tables of a section whose first column has one of these heads."""
    return [row for head, found in TABLES.get(section, []) if head in heads for row in found]


def test_every_route_has_a_section_and_a_line_in_the_first_table() -> None:
    known = {f"{method} {path}" for path, methods in RESOURCES.items() for method in methods}
    assert {names(row[0])[0] for row in rows("Routes", "Route")} == known
    sections = {line.removeprefix("### ") for line in DOCUMENT.splitlines() if re.match(r"### [A-Z]+ /", line)}
    assert sections == known
    for path in OPEN_PATHS:
        assert re.search(rf"`GET {path}`.*needs no token", DOCUMENT)


def test_every_query_parameter_is_in_the_section_of_its_route() -> None:
    asked = [(method, path) for path, methods in RESOURCES.items() for method in methods]
    commands = "\n".join(f"$ curl -s -X {method} 'http://127.0.0.1:8080{path}?nonsense=1'\n…" for method, path in asked)
    answers = in_story(f"```console\n{commands}\n```", Reader())
    for (method, path), (_, response) in zip(asked, answers, strict=True):
        expected = response.json()["error"]["details"]["expected"]
        known = set() if expected == "no parameters" else set(expected.split(", "))
        assert {name for row in rows(f"{method} {path}", "Query") for name in names(row[0])} == known, (method, path)


def headers_in_code() -> set[str]:
    """Every header that the API reads or writes, in lower case, as its source names them."""
    found: set[Any] = set()
    for file in Path(node.api.__path__[0]).glob("*.py"):
        for part in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match part:
                case ast.Call(func=ast.Name(id="header") | ast.Attribute(attr="header"), args=[_, ast.Constant(name)]):
                    found.add(name)  # header(request, "if-match")
                case ast.Call(func=ast.Attribute(ast.Name(id="headers"), "get"), args=[ast.Constant(name), *_]):
                    found.add(name)  # headers.get(b"traceparent", b"")
                case ast.comprehension(iter=ast.Tuple(elts)):
                    found.update(each.value for each in elts if isinstance(each, ast.Constant))  # in (b"host", ...)
                case ast.Tuple([ast.Constant(str() as name), _]) if name[:1].isupper():
                    found.add(name)  # ("Content-Type", ...)
                case ast.Dict(keys):  # {"ETag": ...}; names in JSON are lower-case, and methods upper-case
                    keys_in_dict = (key.value for key in keys if isinstance(key, ast.Constant))
                    found.update(
                        name
                        for name in keys_in_dict
                        if isinstance(name, str) and name[:1].isupper() and not name.isupper()
                    )
                case ast.Assign(targets=[ast.Subscript(ast.Name(id="headers"), slice=ast.Constant(name))]):
                    found.add(name)  # headers["UCXL-Reason"] = ...
    return {(name.decode() if isinstance(name, bytes) else name).lower() for name in found}


def test_every_header_is_in_a_table() -> None:
    documented = {
        name.lower()
        for section in TABLES
        for row in rows(section, "Header", "Request header", "Answer header")
        for name in names(row[0])
    }
    assert documented == headers_in_code() | {"ucxl-meta-name"}


def test_every_code_is_in_the_table_with_whether_it_may_be_retried() -> None:
    retryable: dict[str, set[bool]] = {}
    kinds = [errors.BzzzError, TooSlow]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
        retryable.setdefault(kind.code, set()).add(kind.retryable)
    assert TooSlow.code in retryable
    folder = Path(routes.__file__).parent
    source = "".join((folder / name).read_text(encoding="utf-8") for name in ("route_reply.py", "write_routes.py"))
    successes = {getattr(errors, name) for name in re.findall(r"\berrors\.([A-Z]+)\b", source)}
    table = {names(row[0])[0]: row[2] for row in rows("Codes", "Code")}
    assert set(table) == set(retryable) | successes
    for code, cell in table.items():
        if code in successes:
            assert cell == ""
        elif retryable[code] == {True, False}:
            assert cell.startswith("only "), code
        else:
            assert cell == ("yes" if True in retryable[code] else "no"), code


def test_every_limit_is_in_the_table_with_its_value() -> None:
    request, server = RequestLimits(), ServerLimits()
    limits = [
        ("body of a request", f"{request.body_bytes_max:,} bytes", "body_bytes_max"),
        ("time for the whole body", f"{request.body_seconds_max:g} s", "body_seconds_max"),
        ("requests in progress: reads, and writes", f"{request.requests_max} each", "requests_max"),
        ("writes that begin without waiting for their turn", f"{admission.FREE}", ""),
        ("connections", f"{server.connections_max}", "connections_max"),
        ("open sockets beyond these, while they are refused or closed", f"{server.surplus_max}", "surplus_max"),
        ("time for the first headers of a connection", f"{server.header_seconds_max:g} s", "header_seconds_max"),
        ("time between two requests of a connection", f"{server.idle_seconds_max:g} s", "idle_seconds_max"),
        ("time for a client to read one piece of an answer", f"{server.write_seconds_max:g} s", "write_seconds_max"),
        ("time to stop sending after the answer", f"{server.linger_seconds_max:g} s", "linger_seconds_max"),
        ("time for requests in progress when the node stops", f"{server.grace_seconds:g} s", "grace_seconds"),
        ("all headers of a request", f"{HEADERS_BYTES_MAX:,} bytes", ""),
        ("`timeout_ms`", f"{query.TIMEOUT_MS_MAX:,}", ""),
        ("heads of an address", f"{HEADS_MAX:,}", ""),
        ("entries in one answer: versions, hints, audit lines", f"{routes.LIST_MAX:,}", ""),
        ("digests in `UCXL-Parents` of an answer", f"{content.PARENTS_SHOWN_MAX}", ""),
        ("address", f"{ucxl.ADDRESS_BYTES_MAX:,} bytes", ""),
        ("name in an address", f"{ucxl.NAME_CHARS_MAX} characters", ""),
        ("segment of a path", f"{ucxl.SEGMENT_CHARS_MAX} characters", ""),
        ("`Content-Type` of content", f"{header.CONTENT_TYPE_CHARS_MAX} characters", ""),
        ("parents of a version", f"{header.PARENTS_MAX}", ""),
        ("`meta` of a version", f"{header.META_ENTRIES_MAX} entries, {header.META_BYTES_MAX:,} bytes", ""),
        ("version ahead of the node's clock", f"{clock.AHEAD_MS_MAX:,} ms", ""),
        ("`Idempotency-Key`", "200 characters", ""),
        ("`reason` of a change", f"{changes.REASON_CHARS_MAX} characters", ""),
        ("`author` of a change", f"{changes.AUTHOR_CHARS_MAX} characters", ""),
        ("time of an override", f"{changes.EXPIRES_MS_MAX // 86_400_000} days", ""),
    ]  # fmt: skip
    assert {row[0]: row[1] for row in rows("Limits", "Limit")} == {name: value for name, value, _ in limits}
    assert {field.name for kind in (RequestLimits, ServerLimits) for field in fields(kind)} == {
        name for _, _, name in limits if name
    }


def test_every_link_to_a_section_leads_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", DOCUMENT, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", DOCUMENT)) <= anchors
