"""A client of a node's HTTP API for the commands: sends one request, and reports a failure as one line.

It uses Python's own `http.client`, because the commands must start fast: a larger client takes longer to import than
the node takes to answer.
"""

import contextlib
import http.client
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import click

from node.commands import exit_codes
from node.commands.output import print_json, print_note
from node.config import values
from node.process.streams import OutputFailed

DEFAULT_API = "127.0.0.1:8080"
JSON_TYPE = "application/json"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 15.0
"""How long to wait for an answer, in addition to the time that the call itself may take."""


class Failure(click.ClickException):
    """Ends a command with one line on standard error, or with JSON on standard output if the command has `--json`."""

    def __init__(self, message: str, code: int, error: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]
        self.error = error
        context = click.get_current_context(silent=True)
        self._is_json = bool(context and context.params.get("as_json"))

    def show(self, file: Any = None) -> None:
        if self._is_json:
            with contextlib.suppress(OutputFailed):
                print_json({"error": self.error or {"message": self.message}})
                return
        print_note(self.message)


@dataclass(frozen=True, slots=True)
class ApiReply:
    status: int
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes

    @property
    def data(self) -> dict[str, Any]:
        """The `data` of the answer."""
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
        """Send one request; leaves out parameters that are None. Raises `Failure`, also for an error in answer."""
        parameters = {name: value for name, value in (query or {}).items() if value is not None}
        for name, value in parameters.items():
            _refuse_not_utf8(name, str(value))
        encoded = urlencode(parameters, quote_via=quote, safe="/:@*~^")
        target = f"{path}?{encoded}" if encoded else path
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
            raise self._unreachable("it does not answer in time") from None
        except ConnectionRefusedError:
            raise self._unreachable("nothing listens there") from None
        except OSError as error:
            raise self._unreachable(error.strerror or str(error)) from None
        except http.client.HTTPException as error:
            raise self._unreachable(
                f"a program answers there, but it is not a BZZZ node ({type(error).__name__})"
            ) from None
        finally:
            connection.close()
        if reply.status >= 400:
            raise _refusal(reply)
        return reply

    def _unreachable(self, why: str) -> Failure:
        return Failure(
            f"no node at {self._api}: {why}. Start one with 'bzzz up', or name another with --api or BZZZ_API",
            exit_codes.UNREACHABLE,
        )


def _refuse_not_utf8(name: str, value: str) -> None:
    """Python has the bytes of an argument that are not UTF-8 as lone surrogates. Raises `Failure` for them."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        code = exit_codes.BAD_ADDRESS if name == "address" else exit_codes.WRONG_USE
        raise Failure(f"the {name} {value!r} is not UTF-8", code) from None


def _sendable(name: str, value: str) -> str:
    """The value as http.client takes it: its UTF-8 bytes. Raises `Failure` for what no header can carry."""
    if not _HEADER_NAME.fullmatch(name):
        raise Failure(f"the name in {name!r} has a character that no header can carry; use letters, digits and -", 2)
    if _UNPRINTABLE.search(value):
        what = "the token" if name == "Authorization" else f"{name}: {value!r}"
        raise Failure(f"{what} has a line break or another control character, which no header can carry", 2)
    return value.encode("utf-8", "surrogateescape").decode("latin-1")


def _exchange(
    connection: http.client.HTTPConnection, method: str, target: str, headers: Mapping[str, str], body: bytes | None
) -> ApiReply:
    with contextlib.suppress(
        BrokenPipeError, ConnectionResetError
    ):  # the node answered before it read everything: the answer says why
        connection.request(method, target, body=body, headers=dict(headers))
    response = connection.getresponse()
    return ApiReply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def _refusal(reply: ApiReply) -> Failure:
    try:
        error = dict(json.loads(reply.body)["error"])
        message = str(error["message"])
    except (ValueError, KeyError, TypeError):
        return Failure(
            f"a program answers there, but it is not a BZZZ node (HTTP {reply.status})", exit_codes.UNREACHABLE
        )
    if error.get("retryable"):
        after = reply.headers.get("retry-after")
        message += f" (try again{f' in {after} s' if after else ' later'})"
    return Failure(message, exit_codes.of_refusal(reply.status, error), error)
