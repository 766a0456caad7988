"""Files of a model's folder, recorded at one time and compared at another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hfray.models import folder as folder_module
from hfray.models.folder import changes_since, digest_of, folder_files, read_records


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "1_Pooling").mkdir()
    for name in ("config.json", "model.safetensors", "1_Pooling/config.json", "pytorch_model.bin", "README.md"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    return tmp_path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose content is read from here on."""
    found: list[str] = []
    read = folder_module._read

    def noted(file: Path) -> folder_module.FileRecord:
        found.append(file.name)
        return read(file)

    monkeypatch.setattr(folder_module, "_read", noted)
    return found


def test_names_and_contents_do_not_run_into_each_other(tmp_path: Path) -> None:
    digests = set()
    for folder, files in (("a", {"x": b"1", "y": b""}), ("b", {"x": b"", "y": b"1"}), ("c", {"x": b"1", "z": b""})):
        (tmp_path / folder).mkdir()
        for name, data in files.items():
            (tmp_path / folder / name).write_bytes(data)
        digests.add(digest_of(read_records(tmp_path / folder, files)))
    assert len(digests) == 3


def test_the_digest_is_the_one_that_written_results_carry(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1")
    records = read_records(tmp_path, ["x"])
    assert digest_of(records) == "847f168418e8886bde4f7dd326a43ee66bb1361fcab2bfea94edfe0fb51fe871"


def test_what_has_not_changed_is_not_read_again(folder: Path, reads: list[str]) -> None:
    records = read_records(folder, folder_files(folder))
    assert sorted(reads) == ["config.json", "config.json", "model.safetensors"]
    reads.clear()
    assert changes_since(records, folder, folder_files(folder)) == []
    assert reads == []


def test_equal_content_is_the_same_whatever_its_time(folder: Path, reads: list[str]) -> None:
    records = read_records(folder, folder_files(folder))
    reads.clear()
    os.utime(folder / "model.safetensors", (1, 1))
    assert changes_since(records, folder, folder_files(folder)) == []
    assert reads == ["model.safetensors"]
    config = (folder / "config.json").read_bytes()
    (folder / "config.json").unlink()
    (folder / "config.json").write_bytes(config)
    assert changes_since(records, folder, folder_files(folder)) == []


def test_each_change_is_named(folder: Path) -> None:
    records = read_records(folder, folder_files(folder))
    (folder / "config.json").unlink()
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "1_Pooling" / "config.json").write_text("{}")
    assert changes_since(records, folder, folder_files(folder)) == [
        "config.json is missing",
        "1_Pooling/config.json has changed",
        "chat_template.jinja is new",
    ]


def test_a_time_that_was_set_back_hides_nothing(folder: Path) -> None:
    """As `cp -p` and `touch -r` set it; the size is the same too."""
    records = read_records(folder, folder_files(folder))
    weights = folder / "model.safetensors"
    before = weights.stat()
    data = bytearray(weights.read_bytes())
    data[5000] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert changes_since(records, folder, folder_files(folder)) == ["model.safetensors has changed"]


def test_what_is_never_loaded_may_change(folder: Path) -> None:
    records = read_records(folder, folder_files(folder))
    (folder / "README.md").write_text("# Described anew")
    (folder / "pytorch_model.bin").unlink()
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.json").write_text("{}")
    assert changes_since(records, folder, folder_files(folder)) == []


def test_a_folder_that_is_gone_lacks_all(folder: Path) -> None:
    records = read_records(folder, folder_files(folder))
    elsewhere = folder / "elsewhere"
    assert changes_since(records, elsewhere, folder_files(elsewhere)) == [f"{name} is missing" for name in records]
