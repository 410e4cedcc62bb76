"""Paths: a request finds its resource, and a last segment in capitals stands for any."""

import pytest

from node.api.paths import Paths

PATHS = Paths(["/health", "/v1/content/CID", "/v1/peers", "/v1/peers/forget"])


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/health", "/health"),
        ("/v1/peers/forget", "/v1/peers/forget"),
        ("/v1/content/bafkrei", "/v1/content/CID"),
        ("/v1/content/CID", "/v1/content/CID"),
        ("/v1/content/a b", "/v1/content/CID"),
        ("/v1/content/", None),
        ("/v1/content", None),
        ("/v1/content/a/b", None),
        ("/v1/peers/other", None),
        ("/", None),
        ("", None),
    ],
)
def test_a_path_finds_its_resource(path: str, found: str | None) -> None:
    assert PATHS.find(path) == found
