"""`bzzz get` and `history`: what is at an address, now and before."""

import sys

import click

from node.commands.client import ApiClient, ApiReply, in_words, print_json, print_table, talks_to_node, timeout_option

_CONSISTENCIES = click.Choice(["auto", "local", "swarm"])
_consistency_option = click.option(
    "--consistency", type=_CONSISTENCIES, help="Whom to ask: as the node sees fit, this node alone, or the swarm."
)


@click.command("get")
@click.argument("address")
@click.option("--digest", metavar="DIGEST", help="One version, by its digest.")
@click.option("--envelope", is_flag=True, help="The signed envelope as it is, in place of its content.")
@_consistency_option
@timeout_option
@talks_to_node
def get_command(
    *,
    client: ApiClient,
    as_json: bool,
    address: str,
    digest: str | None,
    envelope: bool,
    consistency: str | None,
    timeout_ms: int | None,
) -> None:
    """Write what is at ADDRESS to standard output, byte for byte.

    The address may name a time: */~~1* the version before, *~1 the first, an ISO 8601 instant what was there then.
    """
    accept = "application/json" if as_json else "application/vnd.bzzz.envelope" if envelope else "*/*"
    query = {"address": address, "digest": digest, "consistency": consistency, "timeout_ms": timeout_ms}
    reply = client.call("GET", "/v1/envelope", query, headers={"Accept": accept}, seconds=(timeout_ms or 0) / 1000)
    if as_json:
        print_json(reply.data)
        return
    sys.stdout.buffer.write(reply.body)
    sys.stdout.buffer.flush()
    _warn(reply)


def _warn(reply: ApiReply) -> None:
    """What a reader should know of where it came from, on standard error."""
    headers = reply.headers
    if headers.get("ucxl-degraded") == "true":
        age = headers.get("ucxl-age-ms")
        known = f", last reconciled {in_words(float(age))} ago" if age is not None else ""
        why = headers.get("ucxl-reason", "the swarm did not answer")
        click.echo(f"bzzz: from this node alone{known}: {why}", err=True)
    if (siblings := int(headers.get("ucxl-siblings", "0"))) > 0:
        versions = "another version was" if siblings == 1 else f"{siblings} other versions were"
        click.echo(f"bzzz: {versions} written beside this one, the latest; see 'bzzz history'", err=True)


@click.command("history")
@click.argument("address")
@click.option("--after", type=click.IntRange(0), metavar="N", help="Leave out the first N versions.")
@click.option("--limit", type=click.IntRange(1, 1000), metavar="N", help="At most so many.")
@_consistency_option
@timeout_option
@talks_to_node
def history_command(
    *,
    client: ApiClient,
    as_json: bool,
    address: str,
    after: int | None,
    limit: int | None,
    consistency: str | None,
    timeout_ms: int | None,
) -> None:
    """List the versions of ADDRESS, the first one first. * marks what a reader gets, + one written beside it."""
    query = {
        "address": address, "after": after, "limit": limit, "consistency": consistency, "timeout_ms": timeout_ms
    }  # fmt: skip
    data = client.call("GET", "/v1/history", query, seconds=(timeout_ms or 0) / 1000).data
    if as_json:
        print_json(data)
        return
    versions, skipped = data["versions"], after or 0
    heads = [version["digest"] for version in versions if version["head"]]
    rows = []
    for number, version in enumerate(versions, start=skipped + 1):
        mark = "*" if heads and version["digest"] == heads[-1] else "+" if version["head"] else " "
        rows.append(
            (f"{mark}{number}", version["written_at"], version["author"][-8:], _kind(version), version["digest"])
        )
    print_table(("#", "WRITTEN", "AUTHOR", "WHAT", "DIGEST"), rows)
    if skipped + len(versions) < data["total"]:
        click.echo(f"bzzz: {data['total'] - skipped - len(versions)} more; --after {skipped + len(versions)}", err=True)
    if not data["complete"]:
        click.echo("bzzz: not every holder answered; there may be more versions", err=True)
    if missing := len(data["missing"]):
        which = "version is" if missing == 1 else "versions are"
        click.echo(f"bzzz: {missing} earlier {which} named as parents and not known there", err=True)


def _kind(version: dict[str, object]) -> str:
    if version["deleted"]:
        return "deleted"
    if version["reissued_as"]:
        return "replaced"
    return f"{version['size_bytes']} bytes" if version["held"] else "held elsewhere"
