"""The examples of `docs/http-api.md`: parses them, and compares what they show with what a node answers.

An example is a `curl` command in a block marked `console`, after a `$`, and below it what it prints. With `-i` that is
the status, the headers and the body, else the body alone; `| jq .some.path` prints a part of it. What is shown must be
so, except that:

- `…` stands for any text, for any value in JSON, and, on a line of its own, for further headers;
- a digest, a version, a peer id or another id stands for the one of the run, and for that one from then on, in later
  commands too;
- a time, and a number whose name ends in `_ms` or `-ms`, stands for any other one.

A comment `<!-- before: ... -->` ahead of a block names what has to happen before it.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

_HEADING = re.compile(r"#{2,4} (.+)")
_BEFORE = re.compile(r"<!-- before: (.+) -->")
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
_ID = r"12D3KooW[1-9A-HJ-NP-Za-km-z]{44}|\b[0-9a-f]{128}\b|\b[0-9a-f]{64}\b|\b[0-9a-f]{16}\b|\b\d{17,20}\b"
_VOLATILE = re.compile(rf"…|(?P<time>{_TIME})|(?P<id>{_ID})")
_FORM = "application/x-www-form-urlencoded"


@dataclass(kw_only=True)
class Example:
    """One command, and what the document shows below it."""

    line: int
    section: str
    before: str | None
    """What has to happen first, if anything."""
    command: str
    shown: str
    method: str = "GET"
    url: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: str | None = None
    has_head: bool = False
    saved_as: str | None = None
    jq: str = ""

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    @property
    def status(self) -> int | None:
        """The status that is shown."""
        match = re.match(r"HTTP/1\.1 (\d{3})", self.shown)
        return int(match[1]) if match else None


def examples(text: str) -> Iterator[Example]:
    """Every example of a document, in its order."""
    section = ""
    before: str | None = None
    block: list[tuple[int, str]] | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if block is not None:
            if line == "```":
                yield from _in_block(block, section, before)
                block, before = None, None
            else:
                block.append((number, line))
        elif line == "```console":
            block = []
        elif match := _BEFORE.fullmatch(line):
            before = match[1]
        elif match := _HEADING.fullmatch(line):
            section = match[1]


def _in_block(block: Sequence[tuple[int, str]], section: str, before: str | None) -> Iterator[Example]:
    starts = [index for index, (_, line) in enumerate(block) if line.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(block)], strict=True):
        number, line = block[start]
        command, rest = line[2:], [line for _, line in block[start + 1 : end]]
        while command.endswith("\\"):
            command = command[:-1] + rest.pop(0).strip()
        yield _parsed(Example(
            line=number, section=section, before=before if start == 0 else None, command=command,
            shown="\n".join(rest).rstrip("\n"),
        ))  # fmt: skip


def _parsed(example: Example) -> Example:
    """Read the command line: the options of curl that the document uses, and no other."""
    words = shlex.split(example.command)
    assert words.pop(0) == "curl", example.command
    is_head, method = False, None
    while words:
        match words.pop(0):
            case "-s":
                pass
            case "-i":
                example.has_head = True
            case "-I":
                example.has_head = is_head = True
            case "-X":
                method = words.pop(0)
            case "-H":
                name, _, value = words.pop(0).removesuffix(";").partition(":")
                example.headers.append((name, value.strip()))
            case "--data-binary":
                example.body = words.pop(0)
            case "-o":
                example.saved_as = words.pop(0)
            case "|":
                assert words.pop(0) == "jq", example.command
                example.jq = words.pop(0)
            case url if url.startswith("http://"):
                example.url = url
            case other:
                raise AssertionError(f"line {example.line}: this test does not know {other!r}")
    if example.body is not None and "content-type" not in {name.lower() for name, _ in example.headers}:
        example.headers.append(("Content-Type", _FORM))  # as curl does
    example.method = method or ("HEAD" if is_head else "POST" if example.body is not None else "GET")
    return example


class Reader:
    """Runs examples one after the other, and remembers what the ids of the document stand for."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._files: dict[str, bytes] = {}

    async def run(self, example: Example, client: httpx.AsyncClient) -> httpx.Response:
        """Send what the command sends. Raises `AssertionError` where the answer is not what is shown."""
        body = example.body
        content = self._files[body[1:]] if body and body.startswith("@") else self._actual(body or "").encode()
        response = await client.request(
            example.method,
            self._actual(example.url),
            headers=[(name, self._actual(value)) for name, value in example.headers],
            content=content if body is not None else None,
        )
        if example.saved_as:
            self._files[example.saved_as] = response.content
        else:
            self._compare(example, response)
        return response

    def _actual(self, text: str) -> str:
        """A text of the document as it is sent: with the ids of the run. What is new is the client's own."""
        return re.sub(_ID, lambda match: self._ids.setdefault(match[0], match[0]), text)

    # -- comparing --------------------------------------------------------------------------------------------

    def _compare(self, example: Example, response: httpx.Response) -> None:
        where = f"line {example.line}, {example.command}\nanswered {response.status_code} {response.text[:2000]}\n"
        body = example.shown
        if example.has_head:
            head, _, body = body.partition("\n\n")
            self._compare_head(head.splitlines(), response, where)
        if not example.shown:
            assert not response.content or example.has_head, where
        elif response.headers.get("content-type") == "application/json" and body and body != "…":
            self._compare_json(json.loads(body), _part(response.json(), example.jq), where, "")
        else:
            self._compare_text(body.rstrip("\n"), response.text.rstrip("\n"), where)

    def _compare_head(self, lines: Sequence[str], response: httpx.Response, where: str) -> None:
        assert lines[0] == f"HTTP/1.1 {response.status_code}", where
        for line in lines[1:]:
            if line != "…":
                name, _, value = line.partition(": ")
                assert name.lower() in response.headers, f"{where}there is no {name}: {response.headers}"
                found = response.headers.get(name)
                if name.endswith("-ms"):
                    value = found if re.fullmatch(r"\d+", found) else value
                value = re.sub(r"dur=[\d.]+", "dur=…", value)
                self._compare_text(value, found, f"{where}{name} is {found!r}, not {value!r}")
        if "…" not in lines:
            shown = {line.partition(":")[0].lower() for line in lines[1:]}
            assert shown == set(response.headers), where

    def _compare_json(self, shown: Any, found: Any, where: str, path: str) -> None:
        at = f"{where}{path or 'the whole'} is {found!r}, not {shown!r}"
        if shown == "…":
            return
        if isinstance(shown, dict):
            assert isinstance(found, dict), at
            assert set(shown) - {"…"} <= set(found), at
            assert "…" in shown or set(shown) == set(found), at
            for name in set(shown) - {"…"}:
                self._compare_json(shown[name], found[name], where, f"{path}.{name}")
        elif isinstance(shown, list):
            assert isinstance(found, list), at
            assert len(shown) == len(found) or "…" in shown, at
            for index, (one, other) in enumerate(zip(shown, found, strict=False)):
                self._compare_json(one, other, where, f"{path}[{index}]")
        elif isinstance(shown, str) and isinstance(found, str):
            self._compare_text(shown, found, at)
        elif path.endswith("_ms") and shown is not None and found is not None:
            assert isinstance(found, int | float), at
        else:
            assert (type(shown), shown) == (type(found), found), at

    def _compare_text(self, shown: str, found: str, message: str) -> None:
        """Match a text against one of the document, and learn what its new ids stand for."""
        pattern, new, end = "", [], 0
        for match in _VOLATILE.finditer(shown):
            pattern += re.escape(shown[end : match.start()])
            end = match.end()
            if match["time"]:
                pattern += _TIME
            elif match["id"]:
                known = self._ids.get(match["id"])
                pattern += f"({_ID})" if known is None else f"({known})"
                new.append(match["id"])
            else:
                pattern += ".*"
        matched = re.fullmatch(pattern + re.escape(shown[end:]), found, re.DOTALL)
        assert matched, message
        for name, actual in zip(new, matched.groups(), strict=True):
            assert self._ids.setdefault(name, actual) == actual, message
            assert self._names.setdefault(actual, name) == name, f"{message}: it was {self._names[actual]} before"


def _part(payload: Any, jq: str) -> Any:
    """A part of a JSON document, as `jq` takes it by a path like `.response.data.versions[0]`."""
    for name, index in re.findall(r"\.([a-z_]+)|\[(\d+)\]", jq):
        payload = payload[name] if name else payload[int(index)]
    return payload


def tables(text: str) -> Mapping[str, list[tuple[str, list[list[str]]]]]:
    """The tables of a document by the heading above them: the first cell of their head, and their rows."""
    found: dict[str, list[tuple[str, list[list[str]]]]] = {}
    section = ""
    rows: list[list[str]] | None = None
    for line in text.splitlines():
        if match := _HEADING.fullmatch(line):
            section = match[1]
        if not line.startswith("|"):
            rows = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if rows is None:
            rows = []
            found.setdefault(section, []).append((cells[0], rows))
        elif not line.startswith("|---"):
            rows.append(cells)
    return found
