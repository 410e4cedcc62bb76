"""The identity of a node: one Ed25519 key in a file, made at the first start and never changed afterwards.

`<data-dir>/identity.key` holds the libp2p `PrivateKey` protobuf, in the form that go-libp2p, js-libp2p and others read
and write. Only its owner may read it (mode 0600). A file that others could have read, or that is damaged, is refused
and left as it is: a new identity would be another member of the swarm, and the hints for the old one would wait for
ever.

A new key has the name `identity.key.new` until the store exists that belongs to it. So a start tells a first one, also
one that follows a crash, from one whose store is gone: with an `identity.key` there was a store.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from protocols.errors import InvalidPayload
from protocols.keys import PrivateKey

FILE_NAME = "identity.key"
_NEW_NAME = "identity.key.new"
_BYTES_MAX = 4096


class IdentityRefused(Exception):
    """The key file cannot be used or made; the message says why, and what to do. Nothing was changed."""


class Identity(NamedTuple):
    """The key of a node, and whether it is new: `keep` was not called for it yet."""

    key: PrivateKey
    is_new: bool


def load_or_make(data_dir: Path, *, seed: bytes) -> Identity:
    """The key of a data directory; made from `seed` (32 random bytes) when there is none yet.

    Raises `IdentityRefused`. The caller holds the lock of the directory.
    """
    try:
        return Identity(_load(data_dir / FILE_NAME), is_new=False)
    except FileNotFoundError:
        pass
    with suppress(FileNotFoundError, IdentityRefused):  # of a first start that did not end, or broke off here
        return Identity(_load(data_dir / _NEW_NAME), is_new=True)
    return Identity(_make(data_dir / _NEW_NAME, PrivateKey.from_seed(seed)), is_new=True)


def keep(data_dir: Path) -> None:
    """From now on a start without a store is no first one: give a new key its name. Raises `IdentityRefused`."""
    new, path = data_dir / _NEW_NAME, data_dir / FILE_NAME
    try:
        if path.exists():
            new.unlink(missing_ok=True)
        else:
            new.rename(path)
            _sync_folder(data_dir)
    except OSError as error:
        raise IdentityRefused(f"the identity {path} cannot be written: {error.strerror or error}") from error


def _load(path: Path) -> PrivateKey:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_BYTES_MAX)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise IdentityRefused(f"the identity {path} cannot be read: {error.strerror or error}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise IdentityRefused(
            f"the identity {path} may be read by others (mode {stat.S_IMODE(mode):04o}): if no other user has read "
            "it, 'chmod 600' it; else move it away, and the next start makes a new one"
        )
    try:
        return PrivateKey.from_protobuf(content)
    except InvalidPayload as error:
        raise IdentityRefused(
            f"the identity {path} cannot be used: {error.message}; restore it from a copy, or move it away, and the "
            "next start makes a new one (a new member for the swarm)"
        ) from error


def _make(path: Path, key: PrivateKey) -> PrivateKey:
    """Write the key, durable on return."""
    try:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o600)
                file.write(key.to_protobuf())
                file.flush()
                os.fsync(descriptor)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise IdentityRefused(f"the identity {path} cannot be written: {error.strerror or error}") from error
    return key


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
