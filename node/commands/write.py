"""`bzzz put`, `delete` and `receipt`: write a version, and ask how durable it is."""

import mimetypes
import sys
from collections.abc import Callable
from typing import Any

import click

from node.commands.client import ApiClient, Failure, print_json, talks_to_node, timeout_option

CONTENT_BYTES_MAX = 1_048_576
"""An encoded envelope has no more, so neither has its content."""

_CONDITIONS = (
    click.option("--parent", "parents", multiple=True, metavar="DIGEST", help="A version it is on top of; repeatable."),
    click.option("--if-match", multiple=True, metavar="DIGEST|*", help="Only if this is still the head; repeatable."),
    click.option("--meta", multiple=True, metavar="NAME=VALUE", help="A word about it; repeatable."),
    click.option("--idempotency-key", metavar="KEY", help="Writes once, however often it is sent."),
    click.option("--replicated", is_flag=True, help="Wait until the swarm has it; exit code 4 if not in time."),
    timeout_option,
)  # fmt: skip


def _conditional(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_CONDITIONS):
        command = option(command)
    return command


@click.command("put")
@click.argument("address")
@click.argument("file", required=False, metavar="[FILE|-]")
@click.option(
    "--type", "content_type", metavar="TYPE", help="Its media type; else by the file's name, or a look at it."
)
@click.option("--create", is_flag=True, help="Only if nothing is there yet.")
@_conditional
@talks_to_node
def put_command(
    *,
    client: ApiClient,
    as_json: bool,
    address: str,
    file: str | None,
    content_type: str | None,
    create: bool,
    replicated: bool,
    timeout_ms: int | None,
    **conditions: Any,
) -> None:
    """Write FILE, or what comes on standard input, to ADDRESS."""
    content = _read(file)
    headers = {**_headers(**conditions), "Content-Type": content_type or _guessed_type(file, content)}
    _write(client, "POST" if create else "PUT", address, headers, content, replicated, timeout_ms, as_json)


@click.command("delete")
@click.argument("address")
@_conditional
@talks_to_node
def delete_command(
    *, client: ApiClient, as_json: bool, address: str, replicated: bool, timeout_ms: int | None, **conditions: Any
) -> None:
    """Mark what is at ADDRESS as deleted. Its history stays."""
    _write(client, "DELETE", address, _headers(**conditions), None, replicated, timeout_ms, as_json)


@click.command("receipt", short_help="Say how durable a write is by now.")
@click.argument("digest", required=False)
@click.option("--log", metavar="ID", help="The log a receipt named.")
@click.option("--sequence", type=int, metavar="N", help="The place in that log.")
@click.option("--replicated", is_flag=True, help="Wait until the swarm has it; exit code 4 when it has not in time.")
@timeout_option
@talks_to_node
def receipt_command(
    *,
    client: ApiClient,
    as_json: bool,
    digest: str | None,
    log: str | None,
    sequence: int | None,
    replicated: bool,
    timeout_ms: int | None,
) -> None:
    """Say how durable a write is by now, by its DIGEST, or by --log and --sequence."""
    if (digest is None) == (sequence is None) or (log is None) != (sequence is None):
        raise click.UsageError("name a DIGEST, or both --log and --sequence")
    query = {"digest": digest, "log": log, "sequence": sequence, **_waiting(replicated, timeout_ms)}
    reply = client.call("GET", "/v1/receipt", query, seconds=_seconds(replicated, timeout_ms))
    _tell(reply.data, reply.message, replicated, as_json)


def _write(
    client: ApiClient,
    method: str,
    address: str,
    headers: dict[str, str],
    body: bytes | None,
    replicated: bool,
    timeout_ms: int | None,
    as_json: bool,
) -> None:
    query = {"address": address, **_waiting(replicated, timeout_ms)}
    seconds = _seconds(replicated, timeout_ms)
    reply = client.call(method, "/v1/envelope", query, headers=headers, body=body, seconds=seconds)
    _tell(reply.data, reply.message, replicated, as_json)


def _waiting(replicated: bool, timeout_ms: int | None) -> dict[str, object | None]:
    return {"replicated": "true" if replicated else None, "timeout_ms": timeout_ms}


def _seconds(replicated: bool, timeout_ms: int | None) -> float:
    return (timeout_ms if timeout_ms is not None else 10_000 if replicated else 0) / 1000


def _tell(receipt: dict[str, Any], message: str, replicated: bool, as_json: bool) -> None:
    """Say what became of it; exit code 4 when it was to be replicated and is not."""
    if as_json:
        print_json(receipt)
    else:
        click.echo(message)
        click.echo(f"  address  {receipt['address']}\n  digest   {receipt['digest']}")
        click.echo(f"  receipt  --log {receipt['log']} --sequence {receipt['sequence']}")
    if replicated and not receipt["replicated"]:
        if not as_json:
            click.echo(f"bzzz: {_why_not_replicated(receipt)}", err=True)
        click.get_current_context().exit(4)


def _why_not_replicated(receipt: dict[str, Any]) -> str:
    if not receipt["quorum"]:
        return "it is stored, and will not be replicated: this node's backend is mock"
    return (
        f"it is stored and safe here, but only {receipt['acknowledged']} of the {receipt['quorum']} nodes it needs "
        f"have it yet; the node goes on sending it, and 'bzzz receipt {receipt['digest']}' says how far it is"
    )


def _headers(
    *, parents: tuple[str, ...], if_match: tuple[str, ...], meta: tuple[str, ...], idempotency_key: str | None
) -> dict[str, str]:
    headers = {}
    if parents:
        headers["UCXL-Parents"] = ", ".join(parents)
    if if_match:
        headers["If-Match"] = "*" if "*" in if_match else ", ".join(f'"{digest}"' for digest in if_match)
    if idempotency_key is not None:
        headers["Idempotency-Key"] = idempotency_key
    for word in meta:
        name, separator, value = word.partition("=")
        if not (separator and name):
            raise click.BadParameter(f"{word!r} is not NAME=VALUE", param_hint="'--meta'")
        headers[f"UCXL-Meta-{name}"] = value
    return headers


def _read(file: str | None) -> bytes:
    """The content, from a file or from standard input. Never waits for a person who did not ask to be waited for."""
    if file is None and sys.stdin.isatty():
        raise click.UsageError("there is nothing to write: name a FILE, or pipe it in; '-' reads what you type")
    if file in (None, "-"):
        if sys.stdin.isatty():
            click.echo("bzzz: reading what you type; Ctrl-D on a line of its own ends it", err=True)
        content = sys.stdin.buffer.read(CONTENT_BYTES_MAX + 1)
        if not content and file is None:
            raise click.UsageError("standard input is empty; if an empty version is meant, write '-' for FILE")
    else:
        try:
            with open(str(file), "rb") as opened:
                content = opened.read(CONTENT_BYTES_MAX + 1)
        except OSError as error:
            raise click.BadParameter(f"{file} cannot be read ({error.strerror})", param_hint="FILE") from None
    if len(content) > CONTENT_BYTES_MAX:
        raise Failure(f"the content has over {CONTENT_BYTES_MAX} bytes, more than an envelope can hold; split it", 1)
    return content


def _guessed_type(file: str | None, content: bytes) -> str:
    guessed = mimetypes.guess_type(file)[0] if file and file != "-" else None
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return guessed if guessed and not guessed.startswith("text/") else "application/octet-stream"
    if guessed is None:
        return "text/plain; charset=utf-8"
    return f"{guessed}; charset=utf-8" if guessed.startswith("text/") else guessed
