"""`bzzz put`, `delete` and `receipt`."""

import io
import json
from pathlib import Path

import click
import pytest

from tests.unit.node.commands.running import ADDRESS, bzzz, json_of, put


def test_what_is_put_from_standard_input_or_a_file_is_got_byte_for_byte(api: str, tmp_path: Path) -> None:
    content = bytes(range(256))
    result = bzzz("put", ADDRESS, stdin=content)
    assert result.exit_code == 0
    assert "stored on this node" in result.stdout
    assert bzzz("get", ADDRESS).stdout_bytes == content
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": 1}')
    json_of("put", ADDRESS, str(path))
    answer = json_of("get", ADDRESS)
    assert answer["envelope"]["content_type"] == "application/json"
    assert answer["envelope"]["content"] == '{"a": 1}'
    assert answer["provenance"]["source"] == "local"


@pytest.mark.parametrize(
    ("name", "content", "media_type"),
    [
        ("a.txt", b"x", "text/plain; charset=utf-8"),
        ("a.txt", b"\xff", "application/octet-stream"),
        ("a.png", b"\xff", "image/png"),
        ("a.unknown", b"x", "text/plain; charset=utf-8"),
        ("unknown", b"\xff", "application/octet-stream"),
        ("a.tar.gz", b"\x1f\x8b\xff", "application/gzip"),
        ("a.tgz", b"\x1f\x8b\xff", "application/gzip"),
        ("a.TAR.GZ", b"\x1f\x8b\xff", "application/gzip"),
        ("a.json.gz", b"\x1f\x8b\xff", "application/gzip"),
        ("a.json.gz", b"", "application/gzip"),
        ("a.html.bz2", b"BZh\xff", "application/x-bzip2"),
        ("a.json.xz", b"\xfd7zXZ", "application/x-xz"),
        ("a.json.br", b"\xff", "application/x-brotli"),
        ("a.json.zst", b"\x28\xb5\x2f\xfd", "application/zstd"),
        ("a.csv.Z", b"\x1f\x9d", "application/x-compress"),
        ("a.svgz", b"\x1f\x8b\xff", "application/gzip"),
        ("a.gz", b"\x1f\x8b\xff", "application/gzip"),
        ("data:,x.json", b"{}", "application/json"),
    ],
)
def test_the_media_type_is_guessed_from_the_name_and_the_content(
    api: str, tmp_path: Path, name: str, content: bytes, media_type: str
) -> None:
    (tmp_path / name).write_bytes(content)
    json_of("put", ADDRESS, str(tmp_path / name))
    assert json_of("get", ADDRESS)["envelope"]["content_type"] == media_type
    json_of("put", ADDRESS, str(tmp_path / name), "--type", "x/y")
    assert json_of("get", ADDRESS)["envelope"]["content_type"] == "x/y"


@pytest.mark.parametrize(
    ("content", "why"),
    [(b'\xef\xbb\xbf{"a": 1}', "BOM"), (b'{"a": 1} // a comment', "Extra data"), (b"/* a */ {}", "Expecting value")],
)
def test_json_that_is_none_is_refused_with_the_way_to_store_it(
    api: str, tmp_path: Path, content: bytes, why: str
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    refused = bzzz("put", ADDRESS, str(path))
    assert refused.exit_code == 1
    assert why in refused.stderr
    assert "that type was guessed from the name: '--type text/plain' stores it as text" in refused.stderr
    assert "--type text/plain" in json.loads(bzzz("put", ADDRESS, str(path), "--json").stdout)["error"]["message"]
    json_of("put", ADDRESS, str(path), "--type", "text/plain")
    assert bzzz("get", ADDRESS).stdout_bytes == content
    declared = bzzz("put", ADDRESS, str(path), "--type", "application/json")
    assert declared.exit_code == 1
    assert "guessed" not in declared.stderr


def test_a_receipt_in_words_names_what_is_needed_to_ask_again(api: str) -> None:
    result = bzzz("put", ADDRESS, "-", stdin=b"x")
    digest = json_of("get", ADDRESS)["envelope"]["digest"]
    assert digest in result.stdout
    assert f"--log {'ab' * 8} --sequence 1" in result.stdout
    again = json_of("receipt", digest)
    assert again["sequence"] == 1
    assert json_of("receipt", "--log", again["log"], "--sequence", "1")["digest"] == digest
    assert bzzz("receipt", "00" * 32).exit_code == 6
    assert bzzz("receipt").exit_code == 2
    assert bzzz("receipt", "--log", "x").exit_code == 2


def test_conditions_and_meta_reach_the_node(api: str) -> None:
    one = put(b"1", "--meta", "note=grüße=x", "--idempotency-key", "k")
    assert json_of("get", ADDRESS)["envelope"]["meta"] == {"note": "grüße=x"}
    assert put(b"1", "--idempotency-key", "k")["digest"] == one["digest"]
    two = put(b"2", "--if-match", one["digest"])
    refused = bzzz("put", ADDRESS, "-", "--if-match", one["digest"], stdin=b"3")
    assert refused.exit_code == 8
    assert "If-Match" in refused.stderr
    put(b"3", "--parent", one["digest"])
    three = put(b"4", "--parent", two["digest"], "--parent", one["digest"])
    assert len(three["parents"]) == 2
    put(b"5", "--if-match", "*", address=ADDRESS)
    assert bzzz("put", ADDRESS, "-", "--create", stdin=b"6").exit_code == 8
    assert bzzz("put", ADDRESS, "-", "--meta", "nonsense", stdin=b"6").exit_code == 2


def test_the_signed_envelope_can_be_taken_out_and_put_in(api: str) -> None:
    put(b"1")
    encoded = bzzz("get", ADDRESS, "--envelope").stdout_bytes
    again = json_of("put", ADDRESS, "-", "--type", "application/vnd.bzzz.envelope", stdin=encoded)
    assert again["sequence"] == 1


def test_a_write_not_replicated_in_time_is_exit_code_4_and_its_receipt_is_still_printed(api: str) -> None:
    result = bzzz("put", ADDRESS, "-", "--replicated", stdin=b"x")
    assert result.exit_code == 4
    assert "digest" in result.stdout
    assert "will not be replicated" in result.stderr
    as_json = bzzz("put", ADDRESS, "-", "--replicated", "--timeout", "1s", "--json", stdin=b"x")
    assert as_json.exit_code == 4
    assert json.loads(as_json.stdout)["replicated"] is False


class _Terminal(io.BytesIO):
    """A keyboard at which nobody types."""

    def isatty(self) -> bool:
        return True


def test_nothing_waits_for_a_person_who_did_not_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.commands.write.sys.stdin", _Terminal())
    from node.commands import write

    with pytest.raises(click.UsageError, match="nothing to write"):
        write._read(None)  # private: click replaces standard input in its runner


def test_an_empty_pipe_is_not_taken_for_an_empty_version_unless_that_is_said(api: str) -> None:
    result = bzzz("put", ADDRESS, stdin=b"")
    assert result.exit_code == 2
    assert "standard input is empty" in result.stderr
    assert bzzz("get", ADDRESS).exit_code == 6
    put(b"")
    assert bzzz("get", ADDRESS).stdout_bytes == b""


def test_too_much_content_and_files_that_are_not_there_are_refused_here(tmp_path: Path) -> None:
    big = bzzz("put", ADDRESS, "-", stdin=b"x" * 1_048_577)
    assert big.exit_code == 1
    assert "1048576" in big.stderr
    missing = bzzz("put", ADDRESS, str(tmp_path / "none"))
    assert missing.exit_code == 2
    assert "No such file" in missing.stderr
    assert bzzz("put", ADDRESS, str(tmp_path)).exit_code == 2
