"""The locks that `scripts/lock` writes: every package pinned and hashed, and no place named to get it from."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LOCKS = ("requirements.lock", "requirements-bootstrap.lock")


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_and_hashed(name: str) -> None:
    entries = re.split(r"\n(?=[A-Za-z0-9])", (ROOT / name).read_text(encoding="utf-8"))
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._-]+==[^ ]+ ", entry), entry
        assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize("name", LOCKS)
def test_no_lock_names_a_place(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"://|--index|--find-links| @ ", text)


def test_the_lock_has_the_libp2p_we_know_and_a_fastecdsa_with_wheels() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert re.search(r"^libp2p==0\.8\.1 ", text, re.MULTILINE)
    fastecdsa = re.search(r"^fastecdsa==(\d+)\.", text, re.MULTILINE)
    assert fastecdsa is not None
    assert int(fastecdsa[1]) >= 4
