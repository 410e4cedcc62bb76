"""UCXL addresses: the grammar, the canonical form, patterns, and the temporal part."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocols import temporal as temporal_module
from protocols import ucxl
from protocols.errors import InvalidAddress, InvalidTemporal
from protocols.temporal import AsOf, Head
from protocols.ucxl import Address
from tests.unit.vectors import load

VECTORS = load("ucxl")
BASE = "ucxl://claude:architect@bzzz:auth-system"
UNRESERVED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"

# -- strategies -----------------------------------------------------------------------------------------------------

names = st.text("abcXYZ019._-", min_size=1, max_size=64).filter(lambda name: name != "any")
names_or_any = names | st.sampled_from(["any", "*"])
digits = st.text("0123456789", max_size=4)
milliseconds = st.integers(-62_135_596_800_000, 253_402_300_799_999)
temporals = st.one_of(
    st.sampled_from(["*^", "*~"]),
    st.builds(lambda n: f"*~{n}", st.integers(1, 10**30)),
    st.builds("~~{}".format, digits),
    st.builds("^^{}".format, digits),
    milliseconds.map(lambda ms: str(AsOf(ms))),
    st.datetimes(datetime(1000, 1, 2), datetime(9999, 1, 1)).map(lambda at: at.isoformat() + "+02:00"),
)
characters = st.sampled_from([*UNRESERVED, "%2f", "%C3", "%61", "%7e", "%00", "%25"])
segments = st.lists(characters, min_size=1, max_size=20).map("".join).filter(
    lambda text: re.sub("%2[eE]", ".", text) not in (".", "..")
)  # fmt: skip
wild_segments = st.just("**") | st.lists(characters | st.just("*"), min_size=1, max_size=8).map("".join).filter(
    lambda text: "**" not in text and re.sub("%2[eE]", ".", text) not in (".", "..")
)


def texts(name: st.SearchStrategy[str], segment: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    tails = st.builds(lambda temporal, path: "/".join(["", temporal, *path]), temporals, st.lists(segment, max_size=4))
    return st.builds(
        lambda a, r, p, t, tail: f"ucxl://{a}:{r}@{p}:{t}{tail}", name, name, name, name, st.just("") | tails
    )


addresses = texts(names, segments)
patterns = texts(names_or_any, wild_segments)

# -- the vectors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS["valid"], ids=lambda vector: vector["text"][:60])
def test_golden_addresses(vector: dict[str, Any]) -> None:
    address = ucxl.parse(vector["text"])
    for part in ("agent", "role", "project", "task", "path", "canonical", "is_pattern"):
        assert getattr(address, part) == vector[part], part
    assert address.text == vector["written"]
    kind, *values = vector["temporal"].values()
    assert address.temporal == getattr(temporal_module, kind)(*values)
    if vector["key"] is not None:
        assert address.key.decode() == vector["key"]


@pytest.mark.parametrize("vector", VECTORS["invalid"], ids=lambda vector: ascii(vector["text"][:60]))
def test_golden_refusals(vector: dict[str, str]) -> None:
    with pytest.raises((InvalidAddress, InvalidTemporal)) as refused:
        ucxl.parse(vector["text"])
    assert (refused.value.code, refused.value.details["field"]) == (vector["code"], vector["field"])


@pytest.mark.parametrize("vector", VECTORS["matches"], ids=lambda v: f"{v['pattern'][7:]} {v['address'][7:]}")
def test_golden_matches(vector: dict[str, Any]) -> None:
    assert ucxl.matches(ucxl.parse(vector["pattern"]), ucxl.parse(vector["address"])) is vector["matches"]


# -- parse and format -----------------------------------------------------------------------------------------------


@given(addresses | patterns)
def test_parse_and_format_are_inverse(text: str) -> None:
    address = ucxl.parse(text)
    assert ucxl.parse(address.text) == address
    assert ucxl.parse(address.text).text == address.text == str(address)


@given(addresses | patterns)
def test_the_canonical_form_is_its_own_and_names_the_head(text: str) -> None:
    address = ucxl.parse(text)
    head = ucxl.parse(address.canonical)
    assert head == replace(address, temporal=Head())
    assert head.temporal == Head()
    assert head.canonical == head.text == address.canonical


@given(st.one_of(addresses, patterns, addresses.map(lambda text: ucxl.parse(text).canonical)))
@example(f"{BASE}/*^/" + "/".join(["x" * 128] * 3))
@example(f"{BASE}/*^/" + "x" * 129)
@example(f"{BASE}/*^/%7A")
@example("ucxl://anyone:b@c:any.d/*^")
@example("ucxl://any:b@c:d/*^")
@example("ucxl://a:any@c:d/*^")
@example("ucxl://a:b@any:d/*^")
@example("ucxl://a:b@c:any/*^")
def test_exactly_one_spelling_of_an_address_is_canonical(text: str) -> None:
    try:
        address = ucxl.parse(text)
        is_canonical = address.canonical == text and not address.is_pattern
    except InvalidAddress:
        is_canonical = False
    if is_canonical:
        assert ucxl.canonical_key(text) == ucxl.parse(text).key
    else:
        with pytest.raises(InvalidAddress):
            ucxl.canonical_key(text)


@pytest.mark.parametrize("octet", range(256))
def test_each_byte_of_a_path_has_one_spelling(octet: int) -> None:
    upper, lower = ucxl.parse(f"{BASE}/*^/x%{octet:02X}"), ucxl.parse(f"{BASE}/*^/x%{octet:02x}")
    assert upper == lower
    assert upper.path == (f"x{chr(octet)}" if chr(octet) in UNRESERVED else f"x%{octet:02X}")
    ucxl.canonical_key(upper.canonical)
    if upper.canonical != f"{BASE}/*^/x%{octet:02X}":
        with pytest.raises(InvalidAddress):
            ucxl.canonical_key(f"{BASE}/*^/x%{octet:02X}")


weird = st.one_of(
    st.text(), st.text().map("ucxl://".__add__), st.text().map((BASE + "/").__add__),
    st.text().map((BASE + "/*^/").__add__), st.text("*~^0123456789-:TZ+.").map((BASE + "/").__add__),
    st.text(st.characters(categories=["Cs", "Cc"])).map((BASE + "/*^/").__add__),
    st.text("%:@/*.ay", max_size=40).map("ucxl://".__add__),
)  # fmt: skip


@given(weird)
@example("x" * 5_000_000)
@example(BASE + "/*~" + "9" * 900)
@example(BASE + "/*~" + "9" * 100_000)
def test_any_text_is_an_address_or_a_clear_refusal(text: str) -> None:
    found = parsed_or_refused(text)
    if isinstance(found, Address):
        assert ucxl.parse(found.text) == found
        return
    assert set(found.details) == {"field", "provided", "expected"}
    for shown in (found.message, *found.details.values()):
        assert shown.isprintable(), "it goes into logs and terminals"
        assert len(shown.encode()) < 2000, "and neither is a place for megabytes, or for lone surrogates"


def parsed_or_refused(text: str) -> Address | InvalidAddress | InvalidTemporal:
    try:
        return ucxl.parse(text)
    except (InvalidAddress, InvalidTemporal) as refused:
        return refused


@pytest.mark.parametrize("value", [None, 7, b"ucxl://a:b@c:d", ["ucxl://a:b@c:d"], {}, object], ids=ascii)
def test_what_is_no_text_is_no_address(value: object) -> None:
    for door in (ucxl.parse, ucxl.canonical_key):
        with pytest.raises(InvalidAddress):
            door(value)


def test_a_path_without_a_time_is_refused_with_the_address_that_was_meant() -> None:
    with pytest.raises(InvalidAddress) as refused:
        ucxl.parse("ucxl://a:b@c:d/notes.md")
    assert refused.value.details["expected"] == "ucxl://a:b@c:d/*^/notes.md"


def test_a_character_that_must_be_encoded_is_refused_with_its_encoding() -> None:
    with pytest.raises(InvalidAddress, match="caf%C3%A9%20%2F"):
        ucxl.parse(f"{BASE}/*^/café %2F")


def test_an_address_has_1024_bytes_as_given_and_as_written_in_full() -> None:
    head = "ucxl://a:b@c:d/*^"
    full = head + ("/" + "x" * 124) * 8 + "/123456"
    assert len(full) == 1024
    assert ucxl.parse(full).canonical == full
    ucxl.canonical_key(full)
    for longer in (full + "7", full.replace("*^", "~~"), full.replace("ucxl://a:", "ucxl://*:")):
        with pytest.raises(InvalidAddress, match="1024"):
            ucxl.parse(longer)


def test_case_matters_and_only_any_itself_is_a_wildcard() -> None:
    assert ucxl.parse("ucxl://A:b@c:d").key != ucxl.parse("ucxl://a:b@c:d").key
    assert not ucxl.parse("ucxl://ANY:Any@anyone:many").is_pattern


def test_an_address_of_one_thing_is_no_pattern() -> None:
    address = ucxl.parse(f"{BASE}/~~2/x")
    assert ucxl.require_one(address) is address
    for text in ("ucxl://any:b@c:d", "ucxl://a:*@c:d", f"{BASE}/*^/**", f"{BASE}/*^/*.md"):
        with pytest.raises(InvalidAddress, match="pattern"):
            ucxl.require_one(ucxl.parse(text))


def test_every_version_of_a_thing_has_one_key() -> None:
    spellings = ["/*^/x", "/*~3/x", "/~~/x", "/2026-08-07/x", "/*^/%78"]
    keys = {ucxl.parse(BASE + spelling).key for spelling in spellings}
    assert keys == {ucxl.key_of(f"{BASE}/*^/x")}
    assert re.fullmatch(rb"/ucxl/[A-Za-z0-9_-]{43}", keys.pop())


# -- time -----------------------------------------------------------------------------------------------------------


@given(st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.timezones()))
def test_an_instant_is_the_same_in_every_zone(at: datetime) -> None:
    at = at.replace(second=at.second, microsecond=at.microsecond // 1000 * 1000)
    offset = at.utcoffset()
    assert offset is not None
    if offset.total_seconds() % 60:
        return  # a zone from before there were zones; ISO 8601 cannot write its offset
    utc = at.astimezone(UTC)
    parsed = ucxl.parse(f"{BASE}/{at.isoformat()}").temporal
    assert parsed == ucxl.parse(f"{BASE}/{utc.isoformat()}").temporal
    assert parsed == AsOf(round((utc - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000))


@given(milliseconds)
def test_an_instant_is_written_as_it_is_read(unix_ms: int) -> None:
    assert ucxl.parse(f"{BASE}/{AsOf(unix_ms)}").temporal == AsOf(unix_ms)


def test_a_time_without_an_offset_is_utc() -> None:
    assert ucxl.parse(f"{BASE}/2026-08-07T14:30").temporal == ucxl.parse(f"{BASE}/2026-08-07T14:30:00.000Z").temporal


# -- patterns -------------------------------------------------------------------------------------------------------

few_segments = st.tuples(
    st.lists(st.sampled_from(["a", "b", "**"]), max_size=5), st.lists(st.sampled_from("ab"), max_size=5)
)
few_characters = st.tuples(
    st.lists(st.sampled_from(["*", "**", "a*", "*b", "a*b", "*a*", "%2F"]), max_size=3),
    st.lists(st.sampled_from(["a", "b", "ab", "aa", "%2F", "a%20b"]), max_size=3),
)


@given(few_segments | few_characters)
def test_path_patterns_agree_with_a_regular_expression(paths: tuple[list[str], list[str]]) -> None:
    pattern, path = paths
    character = "(?:[^/%]|%..)"
    expression = "".join(
        f"(?:/{character}+)*" if segment == "**" else "/" + segment.replace("*", f"{character}*") for segment in pattern
    )
    expected = re.fullmatch(expression, "".join(f"/{segment}" for segment in path)) is not None
    assert ucxl.matches(under(pattern), under(path)) is expected


@given(patterns, addresses)
def test_a_pattern_of_everything_covers_every_address(pattern: str, text: str) -> None:
    address = ucxl.parse(text)
    assert ucxl.matches(ucxl.parse("ucxl://any:any@any:any/*^/**"), address)
    assert ucxl.matches(address, address)
    ucxl.matches(ucxl.parse(pattern), address)


def test_a_pattern_does_not_cover_patterns() -> None:
    with pytest.raises(InvalidAddress):
        ucxl.matches(ucxl.parse("ucxl://any:any@any:any"), ucxl.parse("ucxl://a:b@c:any"))


def test_a_hostile_pattern_comes_to_an_end() -> None:
    """With backtracking over every star these would never end."""
    stars = [("*a" * 63)[:127] + "b"] * 7
    assert not ucxl.matches(under(stars), under(["a" * 127] * 7))
    assert not ucxl.matches(under(["**", "a"] * 100 + ["b"]), under(["a"] * 480))


def under(segments: list[str]) -> Address:
    return ucxl.parse("/".join([f"{BASE}/*^", *segments]))
