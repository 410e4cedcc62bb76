"""Capabilities: their text, what is refused, and what a search finds."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.capabilities import (
    CAPABILITIES_MAX,
    Capability,
    Label,
    Model,
    Role,
    Service,
    fields_of,
    from_fields,
    matches,
    ordered,
    parse,
    text_of,
)
from protocols.errors import InvalidPayload

DIGEST = "9f" * 32


@pytest.mark.parametrize(
    ("text", "capability"),
    [
        ("role:planner", Role("planner")),
        ("model:llama3", Model("llama3")),
        ("model:llama3:70b@q4", Model("llama3:70b", "q4")),
        (f"model:org/llama3@70b#{DIGEST}", Model("org/llama3", "70b", DIGEST)),
        (f"model:llama3#{DIGEST}", Model("llama3", "", DIGEST)),
        ("service:embed=http://192.0.2.7:9000/v1?a=b", Service("embed", "http://192.0.2.7:9000/v1?a=b")),
        ("service:embed=[2001:db8::7]:9000", Service("embed", "[2001:db8::7]:9000")),
        ("service:files=/ip4/192.0.2.7/tcp/9000", Service("files", "/ip4/192.0.2.7/tcp/9000")),
        ("label:gpu=NVIDIA A100", Label("gpu", "NVIDIA A100")),
        ("label:spare", Label("spare")),
    ],
)
def test_a_text_is_read_and_written(text: str, capability: Capability) -> None:
    assert parse(text) == capability
    assert text_of(capability) == text
    assert from_fields(fields_of(capability)) == capability


@pytest.mark.parametrize(
    "text",
    [
        "", "planner", "power:planner", "role:", "role:a b", f"role:{'x' * 65}", "role:\x1b[2J", "model:", "model:a b",
        "model:llama3@7 b", "model:llama3#9F", f"model:llama3#{DIGEST}0", "service:embed", "service:embed=",
        "service:embed=nowhere", "service:embed=http://a b", f"service:embed=http://{'x' * 250}", "service:a=http://\x1b",
        "label:=x", "label:gpu=\x07", "label:gpu=\u202e", "label:gpu=a\nb", f"label:gpu={'x' * 129}", "label:gpu= x",
        "label:gpu=\ud800",
    ],
)  # fmt: skip
def test_what_is_no_capability_is_refused_in_printable_words(text: str) -> None:
    with pytest.raises(InvalidPayload) as refused:
        parse(text)
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 400


@given(st.text(max_size=30))
def test_any_text_is_refused_or_read_and_written_unchanged_in_meaning(text: str) -> None:
    for kind in ("role", "model", "service", "label"):
        with contextlib.suppress(InvalidPayload):
            capability = parse(f"{kind}:{text}")
            assert parse(text_of(capability)) == capability
            assert text_of(capability).isprintable()


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("model", True), ("model:llama3", True), ("llama3", True), ("llama3@70b", True), ("model:llama3@70b", True),
        (f"model:llama3@70b#{DIGEST}", True), ("model:llama", False), ("role:llama3", False), ("llama3@7", False),
        ("role", False), ("70b", False), ("", False),
    ],
)  # fmt: skip
def test_a_search_finds_a_capability_by_its_beginning(wanted: str, found: bool) -> None:
    assert matches(Model("llama3", "70b", DIGEST), wanted) == found


def test_a_node_has_one_capability_at_each_place() -> None:
    old, new = Service("embed", "http://a:1"), Service("embed", "http://b:2")
    versions = Model("llama3", "70b"), Model("llama3", "8b")
    assert ordered([old, *versions, new, Label("embed")]) == (Label("embed"), *versions, new)


def test_a_node_has_a_bounded_number_of_capabilities() -> None:
    with pytest.raises(InvalidPayload, match=f"{CAPABILITIES_MAX} are the most"):
        ordered(Role(f"r{number}") for number in range(10_000))
