"""The signature cache: a signature is verified once, and a forged one is always refused."""

from dataclasses import replace

import pytest

from protocols.clock import version
from protocols.envelope import Envelope, seal
from protocols.errors import BadSignature
from protocols.keys import PrivateKey
from protocols.policy import signature_cache
from protocols.policy.signature_cache import SignatureCache

KEY = PrivateKey.from_seed(b"\x07" * 32)


def envelope(number: int = 0) -> Envelope:
    return seal(
        KEY,
        address=f"ucxl://a:b@c:d/*^/{number}",
        content=b"x",
        content_type="text/plain",
        version=version(1),
        parents=(),
    )


def test_a_checked_signature_is_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, one = SignatureCache(), envelope()
    cache.check(one)
    monkeypatch.setattr(signature_cache, "verify", lambda _: pytest.fail("it was checked again"))
    cache.check(one)


def test_a_forged_signature_on_a_known_envelope_is_refused() -> None:
    cache, one = SignatureCache(), envelope()
    cache.check(one)
    with pytest.raises(BadSignature):
        cache.check(replace(one, signature=bytes(64)))


def test_a_refused_signature_is_not_cached() -> None:
    cache, forged = SignatureCache(), replace(envelope(), signature=bytes(64))
    for _ in range(2):
        with pytest.raises(BadSignature):
            cache.check(forged)


def test_the_cache_is_bounded_and_the_oldest_entry_is_evicted_first(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = SignatureCache(entries_max=2)
    first, second, third = envelope(1), envelope(2), envelope(3)
    for one in (first, second, third):
        cache.check(one)
    checked: list[Envelope] = []
    monkeypatch.setattr(signature_cache, "verify", checked.append)
    for one in (second, third, first):
        cache.check(one)
    assert checked == [first]
