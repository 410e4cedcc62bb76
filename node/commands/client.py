"""How the commands speak with a node: one HTTP request, and what came of it in words.

Python's own `http.client`: the commands are to answer at once, and a client with more to it takes longer to import
than the node takes to reply.
"""

import contextlib
import functools
import http.client
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import click

from node.config import values

DEFAULT_API = "127.0.0.1:8080"
JSON_TYPE = "application/json"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 15.0
"""What a node may take to answer beyond the time a call asks for."""


class Failure(click.ClickException):
    """The end of a command, as a line on standard error, or as JSON on standard output where that was asked for."""

    def __init__(self, message: str, code: int, error: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]
        self.error = error
        context = click.get_current_context(silent=True)
        self._is_json = bool(context and context.params.get("as_json"))

    def show(self, file: Any = None) -> None:
        if self._is_json:
            click.echo(json.dumps({"error": self.error or {"message": self.message}}, ensure_ascii=False))
        else:
            click.echo(f"bzzz: {self.message}", err=True)


@dataclass(frozen=True, slots=True)
class ApiReply:
    status: int
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes

    @property
    def data(self) -> dict[str, Any]:
        """What the node said, out of its shape."""
        data = json.loads(self.body)["response"]["data"]
        assert isinstance(data, dict)
        return data

    @property
    def message(self) -> str:
        return str(json.loads(self.body)["response"]["message"])


class ApiClient:
    """One node's API, at `host:port`."""

    def __init__(self, api: str, token: str | None) -> None:
        self._api = api
        self._token = token

    def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, object | None] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        seconds: float = 0.0,
    ) -> ApiReply:
        """One request; what is None in `query` is left out. Raises `Failure`, for answers that are errors too."""
        told = {name: value for name, value in (query or {}).items() if value is not None}
        target = path + ("?" + urlencode(told, quote_via=quote, safe="/:@*~^") if told else "")
        sent = {"Accept": JSON_TYPE, **(headers or {})}
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        sent = {name: _sendable(name, value) for name, value in sent.items()}
        host, port = values.split_host_port(self._api)
        connection = http.client.HTTPConnection(host, port, timeout=_CONNECT_SECONDS)
        try:
            connection.connect()
            connection.sock.settimeout(_ANSWER_SECONDS + seconds)
            reply = _exchange(connection, method, target, sent, body)
        except TimeoutError:
            raise self._unreachable("it does not answer") from None
        except ConnectionRefusedError:
            raise self._unreachable("nothing listens there") from None
        except OSError as error:
            raise self._unreachable(error.strerror or str(error)) from None
        except http.client.HTTPException as error:
            raise self._unreachable(f"what answers there is no BZZZ node ({type(error).__name__})") from None
        finally:
            connection.close()
        if reply.status >= 400:
            raise _refusal(reply)
        return reply

    def _unreachable(self, why: str) -> Failure:
        return Failure(f"no node at {self._api}: {why}; is it up (bzzz up)? --api or BZZZ_API says which one to ask", 3)


def _sendable(name: str, value: str) -> str:
    """A header as http.client writes it: UTF-8, byte for byte. What no header can carry is wrong use."""
    if not _HEADER_NAME.fullmatch(name):
        raise Failure(f"the name in {name!r} has a character that no header can carry; letters, digits and - can be", 2)
    if _UNPRINTABLE.search(value):
        shown = "the token" if name == "Authorization" else f"{name}: {value!r}"
        raise Failure(f"{shown} has a line break or another control character, which no header can carry", 2)
    return value.encode("utf-8", "surrogateescape").decode("latin-1")


def _exchange(
    connection: http.client.HTTPConnection, method: str, target: str, headers: Mapping[str, str], body: bytes | None
) -> ApiReply:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent: the answer says why
        connection.request(method, target, body=body, headers=dict(headers))
    response = connection.getresponse()
    return ApiReply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def _refusal(reply: ApiReply) -> Failure:
    try:
        error = json.loads(reply.body)["error"]
        message = str(error["message"])
    except (ValueError, KeyError, TypeError):
        return Failure(f"what answers there is no BZZZ node (HTTP {reply.status})", 3)
    if error.get("retryable"):
        after = reply.headers.get("retry-after")
        message += f" (try again{f' in {after} s' if after else ' later'})"
    return Failure(message, 1, error)


# -- options that every such command has ------------------------------------------------------------------------------


def talks_to_node(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--api`, `--api-token-file` and `--json`; it is called with `client` and `as_json`."""

    @click.option("--json", "as_json", is_flag=True, help="Answer in JSON, on one line.")
    @click.option("--api-token-file", metavar="FILE", envvar="BZZZ_API_TOKEN_FILE", help="Where the API's token is.")
    @click.option("--api", metavar="HOST:PORT", default=DEFAULT_API, envvar="BZZZ_API", show_default=True,
                  help="The node to ask (BZZZ_API).")  # fmt: skip
    @functools.wraps(command)
    def with_client(api: str, api_token_file: str | None, **rest: Any) -> None:
        try:
            address = values.host_port(api)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="'--api' (BZZZ_API)") from None
        command(client=ApiClient(address, _token(api_token_file)), **rest)

    return with_client


def _token(path: str | None) -> str | None:
    if path is None:
        return os.environ.get("BZZZ_API_TOKEN", "").strip() or None
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{path} cannot be read ({error})", param_hint="'--api-token-file'") from None


class Duration(click.ParamType[int]):
    """A duration on the command line, as whole milliseconds."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return values.milliseconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


timeout_option = click.option(
    "--timeout", "timeout_ms", type=Duration(), help="How long it may take, like 500ms or 10s."
)


# -- answers ----------------------------------------------------------------------------------------------------------


def print_json(data: object) -> None:
    click.echo(json.dumps(data, ensure_ascii=False))


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The lines of a table: columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]


def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    click.echo("\n".join(table(head, rows)))


def in_words(milliseconds: float | None) -> str:
    """A duration as a person says it: `12 ms`, `3.4 s`, `5 min`, `2 h`, `3 d`."""
    if milliseconds is None:
        return "never"
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000)):
        if milliseconds >= 2 * size:
            return f"{milliseconds / size:.0f} {unit}"
    return f"{milliseconds / 1000:.1f} s" if milliseconds >= 1000 else f"{milliseconds:.0f} ms"
