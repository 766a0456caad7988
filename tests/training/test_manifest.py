from __future__ import annotations

import json
import os
import stat

import pytest

from hfray.errors import DataError
from hfray.training.manifest import MANIFEST, Entry, is_sealed, seal, unseal, verify
from hfray.training.secret import SecretKey

KEY = SecretKey(b"k" * 32)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "step-10"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "state.json").write_bytes(b"{}")
    (folder / "rank-00000.safetensors").write_bytes(bytes(range(256)) * 64)
    (folder / "tokenizer" / "vocab.txt").write_bytes(b"a\nb\n")
    seal(folder, KEY)
    return folder


def test_a_sealed_folder_is_whole_and_closed_to_others(folder):
    assert is_sealed(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [entry.name for entry in verify(folder, KEY)] == [
        "rank-00000.safetensors",
        "state.json",
        "tokenizer/vocab.txt",
    ]
    assert KEY.value not in (folder / MANIFEST).read_bytes()


@pytest.mark.parametrize("name", ["rank-00000.safetensors", "state.json", "tokenizer/vocab.txt"])
def test_a_byte_flipped_is_refused_by_name(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} has been changed"):
        verify(folder, KEY)


@pytest.mark.parametrize("name", ["rank-00000.safetensors", "tokenizer/vocab.txt"])
def test_a_file_that_was_cut_is_refused_by_name(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{name} has .* bytes in place of"):
        verify(folder, KEY)


@pytest.mark.parametrize("name", ["zero_pp_rank_0_optim_states.pt", "tokenizer/more.txt", f"{MANIFEST}.unfinished"])
def test_a_file_added_is_refused_by_name(folder, name):
    (folder / name).write_bytes(b"")
    with pytest.raises(DataError, match=f"{name} has been added"):
        verify(folder, KEY)


@pytest.mark.parametrize("name", ["state.json", "tokenizer/vocab.txt"])
def test_a_file_removed_is_refused_by_name(folder, name):
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        verify(folder, KEY)


def test_a_link_in_place_of_a_file_is_refused(folder, tmp_path):
    (folder / "state.json").rename(tmp_path / "elsewhere.json")
    (folder / "state.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(DataError, match=r"state\.json is no plain file"):
        verify(folder, KEY)
    unseal(folder)
    with pytest.raises(DataError, match=r"state\.json is no plain file"):
        seal(folder, KEY)


def test_another_key_is_refused(folder):
    with pytest.raises(DataError, match="not signed with this key"):
        verify(folder, SecretKey(b"j" * 32))


def test_a_manifest_that_was_written_anew_without_the_key_is_refused(folder):
    (folder / "state.json").write_bytes(b"[]")
    content = json.loads((folder / MANIFEST).read_bytes())
    forger = folder.parent / "forged"
    folder.rename(forger)
    seal(forger, SecretKey(b"j" * 32))
    for forged in (json.loads((forger / MANIFEST).read_bytes()), content | {"files": content["files"][1:]}):
        (forger / MANIFEST).write_text(json.dumps(forged))
        with pytest.raises(DataError, match="not signed with this key"):
            verify(forger, KEY)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"hmac": 1}', b"[" * 100_000, b"\xff"])
def test_a_manifest_that_is_none_is_refused(folder, content):
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(DataError, match=MANIFEST):
        verify(folder, KEY)


def test_a_folder_without_a_manifest_was_cut_off(folder):
    unseal(folder)
    assert not is_sealed(folder)
    with pytest.raises(DataError, match="was cut off"):
        verify(folder, KEY)


def test_a_folder_that_others_may_write_to_is_refused(folder):
    folder.chmod(0o720)
    with pytest.raises(DataError, match="other users may write"):
        verify(folder, KEY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(folder):
    os.chown(folder, 12345, -1)
    with pytest.raises(DataError, match="belongs to another user"):
        verify(folder, KEY)


def test_a_folder_that_is_a_link_is_refused(folder, tmp_path):
    (tmp_path / "latest").symlink_to(folder)
    with pytest.raises(DataError, match="is no folder"):
        verify(tmp_path / "latest", KEY)


def test_peers_share_the_reading_and_miss_nothing(folder):
    content = bytearray((folder / "state.json").read_bytes())
    content[0] ^= 1
    (folder / "state.json").write_bytes(content)
    found = []
    for part in range(3):
        try:
            verify(folder, KEY, part=part, parts=3)
        except DataError as error:
            found.append(str(error))
    assert len(found) == 1
    assert "state.json" in found[0]


def test_files_that_are_elsewhere_yet_are_sealed_by_what_their_writers_say(folder):
    unseal(folder)
    seal(folder, KEY, [Entry("rank-00001.safetensors", 3, "0" * 64)])
    with pytest.raises(DataError, match=r"rank-00001\.safetensors is missing"):
        verify(folder, KEY)


def test_a_full_disk_leaves_no_seal(folder, monkeypatch):
    unseal(folder)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        seal(folder, KEY)
    assert not is_sealed(folder)
