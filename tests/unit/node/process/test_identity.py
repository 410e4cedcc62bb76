"""The identity file: made once, for its owner alone, in libp2p's form; refused and untouched when it is wrong.

It has its name once the store that belongs to it exists."""

import os
import stat
from pathlib import Path

import pytest

from node.process.identity import FILE_NAME, IdentityRefused, keep, load_or_make
from protocols.keys import PrivateKey

SEED = bytes(range(32))
NEW_NAME = f"{FILE_NAME}.new"


def loaded(data_dir: Path, *, seed: bytes) -> tuple[str, bool]:
    """The peer id of the key, and whether it is new."""
    key, is_new = load_or_make(data_dir, seed=seed)
    return key.peer_id, is_new


def load_or_create(data_dir: Path, *, seed: bytes) -> PrivateKey:
    """A whole start."""
    key, _ = load_or_make(data_dir, seed=seed)
    keep(data_dir)
    return key


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


def test_a_key_is_new_until_it_is_kept_and_a_start_that_ends_before_is_followed_by_a_first_one(tmp_path: Path) -> None:
    peer_id = PrivateKey.from_seed(SEED).peer_id
    assert loaded(tmp_path, seed=SEED) == (peer_id, True)
    assert os.listdir(tmp_path) == [NEW_NAME]
    assert loaded(tmp_path, seed=b"\xff" * 32) == (peer_id, True)
    for _ in range(2):
        keep(tmp_path)
    assert os.listdir(tmp_path) == [FILE_NAME]
    assert loaded(tmp_path, seed=b"\xff" * 32) == (peer_id, False)


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_new_key_that_was_written_in_part_is_made_again(tmp_path: Path, mode: int) -> None:
    (tmp_path / NEW_NAME).write_bytes(b"half a k")
    (tmp_path / NEW_NAME).chmod(mode)
    assert loaded(tmp_path, seed=SEED) == (PrivateKey.from_seed(SEED).peer_id, True)
    assert stat.S_IMODE((tmp_path / NEW_NAME).stat().st_mode) == 0o600


def test_a_new_key_beside_one_that_was_put_there_is_removed(tmp_path: Path) -> None:
    load_or_make(tmp_path, seed=SEED)
    other = tmp_path / "other"
    other.mkdir()
    load_or_create(other, seed=b"\xff" * 32)
    (other / FILE_NAME).rename(tmp_path / FILE_NAME)
    assert not load_or_make(tmp_path, seed=SEED).is_new
    keep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [FILE_NAME, "other"]


def test_a_key_that_cannot_be_kept_is_refused_and_stays_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = loaded(tmp_path, seed=SEED)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full)
        with pytest.raises(IdentityRefused, match="cannot be written: No space left"):
            keep(tmp_path)
    assert loaded(tmp_path, seed=b"\xff" * 32) == first
