"""`bzzz get` and `history`: the content at an address, and its versions."""

import click

from node.commands.client import ApiClient, ApiReply
from node.commands.options import talks_to_node, timeout_option
from node.commands.output import in_words, print_content, print_json, print_note, print_table
from protocols.cid import decode
from protocols.errors import InvalidPayload

_CONSISTENCIES = click.Choice(["auto", "local", "swarm"])
_consistency_option = click.option(
    "--consistency",
    type=_CONSISTENCIES,
    help="Who answers: the node decides (auto), this node only (local), or the swarm.  [default: auto]",
)


@click.command("get", short_help="Print the content at an address.")
@click.argument("address", required=False)
@click.option("--digest", metavar="DIGEST", help="Print the version with this digest.")
@click.option("--cid", metavar="CID", help="Print the content with this CID, whatever its address and its node.")
@click.option("--envelope", is_flag=True, help="Print the signed envelope instead of its content.")
@_consistency_option
@timeout_option
@talks_to_node
def get_command(
    *,
    client: ApiClient,
    as_json: bool,
    address: str | None,
    digest: str | None,
    cid: str | None,
    envelope: bool,
    consistency: str | None,
    timeout_ms: int | None,
) -> None:
    """Print the content at ADDRESS on standard output, byte for byte. On a terminal, control characters are escaped.

    ADDRESS is like ucxl://agent:role@project:task/*^/path. The part after the task names the version:

    
    *^                    the newest version
    ~~1                   one version before the newest
    *~1                   the first version
    2026-08-07T14:30:00Z  the newest version at that time
    """
    if cid is not None:
        if address or digest or envelope:
            raise click.UsageError("--cid names the content by itself: leave out ADDRESS, --digest and --envelope.")
        _print_by_cid(client, cid, as_json, consistency, timeout_ms)
        return
    if address is None:
        raise click.UsageError("Missing argument 'ADDRESS', or the option --cid.")
    accept = "application/json" if as_json else "application/vnd.bzzz.envelope" if envelope else "*/*"
    query = {"address": address, "digest": digest, "consistency": consistency, "timeout_ms": timeout_ms}
    reply = client.call("GET", "/v1/envelope", query, headers={"Accept": accept}, seconds=(timeout_ms or 0) / 1000)
    if as_json:
        print_json(reply.data)
        return
    print_content(reply.body)
    _warn(reply)


def _print_by_cid(client: ApiClient, cid: str, as_json: bool, consistency: str | None, timeout_ms: int | None) -> None:
    try:
        decode(cid)
    except InvalidPayload as error:
        raise click.UsageError(error.message) from None
    reply = client.call(
        "GET",
        f"/v1/content/{cid}",
        {"consistency": consistency, "timeout_ms": timeout_ms},
        headers={"Accept": "application/json" if as_json else "*/*"},
        seconds=(timeout_ms or 0) / 1000,
    )
    if as_json:
        print_json(reply.data)
    else:
        print_content(reply.body)


def _warn(reply: ApiReply) -> None:
    """Print on standard error that the answer may be old, or has siblings."""
    headers = reply.headers
    if headers.get("ucxl-degraded") == "true":
        age = headers.get("ucxl-age-ms")
        known = f", last reconciled {in_words(float(age))} ago" if age is not None else ""
        why = headers.get("ucxl-reason", "the swarm did not answer")
        where = "the swarm" if headers.get("ucxl-source") == "swarm" else "this node alone"
        print_note(f"from {where}{known}: {why}")
    if (siblings := int(headers.get("ucxl-siblings", "0"))) > 0:
        versions = "another version was" if siblings == 1 else f"{siblings} other versions were"
        print_note(f"{versions} written concurrently with this one, which is the latest; see 'bzzz history'")


@click.command("history", short_help="List the versions of an address.")
@click.argument("address")
@click.option("--after", type=click.IntRange(0), metavar="N", help="Skip the first N versions.")
@click.option("--limit", type=click.IntRange(1, 1000), metavar="N", help="List at most N versions.  [default: 1000]")
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
    """List the versions of ADDRESS, the oldest one first.

    * marks the version that 'bzzz get' prints when its content can be had, + a sibling: another newest version, written
    without knowing this one.
    """
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
        print_note(f"{data['total'] - skipped - len(versions)} more; --after {skipped + len(versions)}")
    if lost := sum(version["head"] and not version["held"] for version in versions):
        which = "newest version is" if lost == 1 else "newest versions are"
        print_note(f"{lost} {which} held elsewhere or by nobody; 'bzzz get' prints the newest whose content can be had")
    if not data["complete"]:
        print_note(f"there may be more versions: {data['provenance']['reason'] or 'not every holder answered'}")
    if missing := len(data["missing"]):
        which = "version is" if missing == 1 else "versions are"
        print_note(f"{missing} earlier {which} named as parents, but this node does not know them")


def _kind(version: dict[str, object]) -> str:
    if version["deleted"]:
        return "deleted"
    if version["reissued_as"]:
        return "replaced"
    return f"{version['size_bytes']} bytes" if version["held"] else "held elsewhere"
