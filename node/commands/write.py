"""`bzzz put`, `delete` and `receipt`: writes a version, and shows how durable it is."""

import mimetypes
import os
import select
import sys
from collections.abc import Callable
from typing import Any

import click

from node.commands import exit_codes
from node.commands.client import ApiClient, Failure
from node.commands.options import complete_files, talks_to_node, timeout_option
from node.commands.output import print_json, print_line, print_note, report

CONTENT_BYTES_MAX = 1_048_576
"""The size of an encoded envelope is limited to this, so its content cannot be larger."""

_replicated_option = click.option(
    "--replicated", is_flag=True,
    help="Wait until enough other nodes have the version; exit code 4 if they do not in time.  [default time: 10s]",
)  # fmt: skip
_OPTIONS = (
    click.option(
        "--parent", "parents", multiple=True, metavar="DIGEST",
        help="A version that this one is based on; repeatable.  [default: the newest that the node knows]",
    ),
    click.option(
        "--if-match", multiple=True, metavar="DIGEST|*",
        help="Write only if this is still the newest version that this node knows; repeat it for each sibling "
        "(*: only if there is one). Other nodes are not locked.",
    ),
    click.option("--meta", multiple=True, metavar="NAME=VALUE", help="A note that is stored with it; repeatable."),
    click.option("--idempotency-key", metavar="KEY", help="Write only once, even if the command is repeated with KEY."),
    _replicated_option,
    timeout_option,
)  # fmt: skip


def _write_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("put", short_help="Write a file, or standard input, to an address.")
@click.argument("address")
@click.argument("file", required=False, metavar="[FILE|-]", shell_complete=complete_files)
@click.option(
    "--type", "content_type", metavar="TYPE", help="The media type.  [default: guessed from the name and the content]"
)
@click.option("--create", is_flag=True, help="Write only if nothing is at ADDRESS.")
@_write_options
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
    """Write FILE, or standard input, to ADDRESS as a new version. Older versions stay in the history.

    ADDRESS is like ucxl://agent:role@project:task/*^/path. The command prints a receipt: how many other nodes have the
    version now, and its digest.
    """
    content = _read(file)
    headers = {**_headers(**conditions), "Content-Type": content_type or _guessed_type(file, content)}
    try:
        _write(client, "POST" if create else "PUT", address, headers, content, replicated, timeout_ms, as_json)
    except Failure as failure:
        raise (_explained(failure, headers["Content-Type"]) if content_type is None else failure) from None


@click.command("delete", short_help="Mark an address as deleted; its history stays.")
@click.argument("address")
@_write_options
@talks_to_node
def delete_command(
    *, client: ApiClient, as_json: bool, address: str, replicated: bool, timeout_ms: int | None, **conditions: Any
) -> None:
    """Mark ADDRESS as deleted: 'bzzz get' finds nothing there any more, but its history stays."""
    _write(client, "DELETE", address, _headers(**conditions), None, replicated, timeout_ms, as_json)


@click.command("receipt", short_help="Show how many nodes have a write now.")
@click.argument("digest", required=False)
@click.option("--log", metavar="ID", help="The log in the receipt.")
@click.option("--sequence", type=int, metavar="N", help="The place in that log.")
@_replicated_option
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
    """Show how many other nodes have a write now. Name the write by its DIGEST, or by --log and --sequence."""
    if (digest is None) == (sequence is None) or (log is None) != (sequence is None):
        raise click.UsageError("give a DIGEST, or both --log and --sequence")
    query = {"digest": digest, "log": log, "sequence": sequence, **_waiting(replicated, timeout_ms)}
    reply = client.call("GET", "/v1/receipt", query, seconds=_seconds(replicated, timeout_ms))
    _print(reply.data, reply.message, replicated, as_json)


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
    _print(reply.data, reply.message, replicated, as_json)


def _waiting(replicated: bool, timeout_ms: int | None) -> dict[str, object | None]:
    return {"replicated": "true" if replicated else None, "timeout_ms": timeout_ms}


def _seconds(replicated: bool, timeout_ms: int | None) -> float:
    return (timeout_ms if timeout_ms is not None else 10_000 if replicated else 0) / 1000


def _print(receipt: dict[str, Any], message: str, replicated: bool, as_json: bool) -> None:
    """Print the receipt; exit code 4 if `replicated` asks for replication and the write is not replicated."""
    is_late = replicated and not receipt["replicated"]
    written = f"{receipt['address']} is stored with digest {receipt['digest']}"
    with report(written, exit_codes.NOT_REPLICATED if is_late else exit_codes.OUTPUT_FAILED):
        if as_json:
            print_json(receipt)
        else:
            print_line(message)
            click.echo(f"  address  {receipt['address']}\n  digest   {receipt['digest']}")
            click.echo(f"  receipt  --log {receipt['log']} --sequence {receipt['sequence']}")
    if is_late:
        if not as_json:
            print_note(_why_not_replicated(receipt))
        click.get_current_context().exit(exit_codes.NOT_REPLICATED)


def _why_not_replicated(receipt: dict[str, Any]) -> str:
    if not receipt["quorum"]:
        return "it is stored on this node, and will not be replicated: the backend of this node is mock"
    return (
        f"it is stored on this node, but only {receipt['acknowledged']} of the {receipt['quorum']} nodes it needs have "
        f"it so far; the node continues to send it, and 'bzzz receipt {receipt['digest']}' shows the progress"
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
    for pair in meta:
        name, separator, value = pair.partition("=")
        if not (separator and name):
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="'--meta'")
        headers[f"UCXL-Meta-{name}"] = value
    return headers


def _read(file: str | None) -> bytes:
    """The content of a file or of standard input. It reads from a terminal only if FILE is `-`."""
    if file is None and sys.stdin.isatty():
        raise click.UsageError("there is nothing to write: give a FILE, or use a pipe; '-' reads what you type")
    if file in (None, "-"):
        if sys.stdin.isatty():
            print_note("reading what you type; Ctrl-D on an empty line ends it")
        content = _of_standard_input(CONTENT_BYTES_MAX + 1)
        if not content and file is None:
            raise click.UsageError("standard input is empty; to write an empty version, give '-' as FILE")
    else:
        try:
            with open(str(file), "rb") as opened:
                content = opened.read(CONTENT_BYTES_MAX + 1)
        except OSError as error:
            raise click.BadParameter(f"{file} cannot be read ({error.strerror})", param_hint="FILE") from None
    if len(content) > CONTENT_BYTES_MAX:
        raise Failure(f"the content is larger than {CONTENT_BYTES_MAX} bytes, the limit of an envelope; split it", 1)
    return content


def _of_standard_input(bytes_max: int) -> bytes:
    """Everything up to the end, or `bytes_max`; waits for a non-blocking pipe, which would look like the end."""
    content = b""
    try:
        while len(content) < bytes_max:
            part = sys.stdin.buffer.read(bytes_max - len(content))
            if part is None:
                select.select([sys.stdin], [], [])
            elif part:
                content += part
            else:
                break
    except OSError as error:
        raise click.UsageError(
            f"standard input cannot be read ({error.strerror or error}); give a FILE, or use a pipe"
        ) from None
    return content


_ENCODINGS = {
    "gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz", "br": "application/x-brotli",
    "compress": "application/x-compress", "zstd": "application/zstd",
}  # fmt: skip
"""The media type of a file by the encoding of what is in it, as `mimetypes` calls it."""


def _guessed_type(file: str | None, content: bytes) -> str:
    guessed = _type_by_name(file) if file and file != "-" else None
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return guessed if guessed and not guessed.startswith("text/") else "application/octet-stream"
    if guessed is None:
        return "text/plain; charset=utf-8"
    return f"{guessed}; charset=utf-8" if guessed.startswith("text/") else guessed


def _type_by_name(file: str) -> str | None:
    """The type of the file itself: `x.tar.gz` is application/gzip, and not the application/x-tar that is inside."""
    name = os.path.basename(file)
    guessed, encoding = mimetypes.guess_type(f"./{name}")  # a name may look like a URL
    if encoding is None and name.lower().endswith((".zst", ".tzst")):  # Python before 3.14 does not know it
        encoding = "zstd"
    return guessed if encoding is None else _ENCODINGS.get(encoding, "application/octet-stream")


def _explained(failure: Failure, guessed: str) -> Failure:
    """A refusal of content that does not fit its type also says that the type was guessed, and how to name another."""
    error = failure.error or {}
    if error.get("details", {}).get("expected") != guessed:
        return failure
    why = f" ({error['cause']})" if error.get("cause") else ""
    message = f"{error['message']}{why}; that type was guessed from the name: '--type text/plain' stores it as text"
    return Failure(message, failure.exit_code, {**error, "message": message})
