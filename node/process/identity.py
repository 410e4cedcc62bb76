"""The identity of a node: one Ed25519 key in a file, made at the first start and never changed afterwards.

`<data-dir>/identity.key` holds the libp2p `PrivateKey` protobuf, in the form that go-libp2p, js-libp2p and others read
and write. Only its owner may read it (mode 0600). A file that others could have read, or that is damaged, is refused
and left as it is: a new identity would be another member of the swarm, and the hints for the old one would wait for
ever.
"""

import os
import stat
from pathlib import Path

from protocols.errors import InvalidPayload
from protocols.keys import PrivateKey

FILE_NAME = "identity.key"
_BYTES_MAX = 4096


class IdentityRefused(Exception):
    """The key file cannot be used or made; the message says why, and what to do. Nothing was changed."""


def load_or_create(data_dir: Path, *, seed: bytes) -> PrivateKey:
    """The key of a data directory; made from `seed` (32 random bytes) when there is none yet.

    Raises `IdentityRefused`. The caller holds the lock of the directory.
    """
    path = data_dir / FILE_NAME
    try:
        return _load(path)
    except FileNotFoundError:
        return _create(path, PrivateKey.from_seed(seed))


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


def _create(path: Path, key: PrivateKey) -> PrivateKey:
    """Write the key atomically: to a temporary file, made durable, and then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(key.to_protobuf())
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
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
