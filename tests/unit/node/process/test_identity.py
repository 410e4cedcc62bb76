"""The identity file: made once, for its owner alone, in libp2p's form; refused and untouched when it is wrong."""

import os
import stat
from pathlib import Path

import pytest

from node.process.identity import FILE_NAME, IdentityRefused, load_or_create
from protocols.keys import PrivateKey

SEED = bytes(range(32))


def test_it_is_made_at_the_first_start_and_is_the_same_afterwards(tmp_path: Path) -> None:
    first = load_or_create(tmp_path, seed=SEED)
    again = load_or_create(tmp_path, seed=b"\xff" * 32)
    assert first.peer_id == again.peer_id == PrivateKey.from_seed(SEED).peer_id
    assert os.listdir(tmp_path) == [FILE_NAME]


def test_the_file_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    for number, umask in enumerate((0o000, 0o277)):
        folder = tmp_path / str(number)
        folder.mkdir()
        before = os.umask(umask)
        try:
            load_or_create(folder, seed=SEED)
        finally:
            os.umask(before)
        assert stat.S_IMODE((folder / FILE_NAME).stat().st_mode) == 0o600


def test_the_form_is_the_protobuf_that_other_implementations_write(tmp_path: Path) -> None:
    key = load_or_create(tmp_path, seed=SEED)
    content = (tmp_path / FILE_NAME).read_bytes()
    assert content[:4] == b"\x08\x01\x12\x40"
    assert content[4:36] == SEED
    assert len(content) == 68
    (tmp_path / FILE_NAME).write_bytes(b"\x08\x01\x12\x20" + SEED)  # what some write: the seed alone
    assert load_or_create(tmp_path, seed=b"").peer_id == key.peer_id


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_file_that_others_could_have_read_is_refused(tmp_path: Path, mode: int) -> None:
    load_or_create(tmp_path, seed=SEED)
    (tmp_path / FILE_NAME).chmod(mode)
    with pytest.raises(IdentityRefused, match=f"{mode:04o}.*chmod 600"):
        load_or_create(tmp_path, seed=SEED)


@pytest.mark.parametrize("content", [b"", b"\x00" * 68, b"-----BEGIN PRIVATE KEY-----", b"\x08\x01\x12\x40" + SEED * 2])
def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(IdentityRefused, match="cannot be used"):
        load_or_create(tmp_path, seed=SEED)
    assert path.read_bytes() == content


def test_a_place_where_it_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IdentityRefused, match="cannot be written"):
        load_or_create(tmp_path / "nowhere", seed=SEED)
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(IdentityRefused, match="cannot be read"):
        load_or_create(tmp_path, seed=SEED)


def test_a_temporary_file_of_a_crash_is_replaced(tmp_path: Path) -> None:
    (tmp_path / f".{FILE_NAME}.{os.getpid()}").write_bytes(b"half a k")
    load_or_create(tmp_path, seed=SEED)
    assert os.listdir(tmp_path) == [FILE_NAME]
