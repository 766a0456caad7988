from __future__ import annotations

import errno
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hfray.data.storage import Storage, storage_for
from hfray.data.urls import parse_url
from hfray.errors import DataError, SpecError


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        (tmp_path / "out" / "attempts").mkdir(parents=True)
        return Storage(str(tmp_path / "out"))
    return Storage(request.getfixturevalue("s3") + "/some/out")


def test_verbs(storage: Storage) -> None:
    storage.make_dirs("data/deep")
    assert not storage.exists("data/a.bin")
    assert storage.info("data/a.bin") is None
    storage.replace("data/a.bin", b"0123456789")
    storage.replace("data/deep/ä b#1%20.bin", b"x")
    storage.replace("data.txt", b"")
    assert storage.exists("data/a.bin")
    assert not storage.exists("data")
    assert storage.is_folder("data")
    assert not storage.is_folder("dat")
    assert storage.size("data/a.bin") == 10
    assert storage.read_bytes("data/a.bin") == b"0123456789"
    assert storage.read_range("data/a.bin", 2, 5) == b"234"
    assert storage.read_range("data/a.bin", 8, 99) == b"89"
    assert storage.read_range("data/a.bin", 3, 3) == b""
    assert storage.read_range("data/a.bin", 7, None) == b"789"
    assert [info.path for info in storage.list("data")] == ["data/a.bin", "data/deep/ä b#1%20.bin"]
    assert [info.path for info in storage.list()] == ["data.txt", "data/a.bin", "data/deep/ä b#1%20.bin"]
    assert list(storage.list("nothing")) == []
    assert set(storage.names("data")) == {"a.bin", "deep"}
    assert storage.names("nothing") == ()
    before = storage.info("data/a.bin")
    storage.replace("data/a.bin", b"other")
    after = storage.info("data/a.bin")
    assert before is not None
    assert after is not None
    assert before.version != after.version
    assert storage.read_bytes("data/a.bin") == b"other"
    storage.delete("data/a.bin")
    storage.delete("data/a.bin")
    storage.delete_prefix("data")
    storage.delete_prefix("data")
    assert [info.path for info in storage.list()] == ["data.txt"]


def test_open_is_a_seekable_file(storage: Storage) -> None:
    content = os.urandom(300_000)
    storage.replace("a.bin", content)
    with storage.open("a.bin", buffer_bytes=1 << 16) as file:
        assert file.read(10) == content[:10]
        file.seek(-7, os.SEEK_END)
        assert file.read() == content[-7:]
        file.seek(100_000)
        assert file.read(150_000) == content[100_000:250_000]
        assert file.tell() == 250_000


def test_writer_appears_whole_or_not_at_all(storage: Storage) -> None:
    with storage.writer("a.bin") as file:
        file.write(b"one")
        file.write(b"two")
        assert not storage.exists("a.bin")
    assert storage.read_bytes("a.bin") == b"onetwo"
    with pytest.raises(TypeError), storage.writer("b.bin") as file:
        file.writelines([b"half", None])  # type: ignore[list-item]
    assert [info.path for info in storage.list()] == ["a.bin"]


@pytest.mark.parametrize("kind", ["bytes", "path", "path among the attempts"])
def test_create_exclusive_the_first_wins(storage: Storage, tmp_path: Path, kind: str) -> None:
    def data(content: bytes) -> bytes | Path:
        if kind == "bytes":
            return content
        among = storage.is_local and kind.endswith("attempts")
        path = (storage.local_path("attempts") if among else tmp_path) / "temporary"
        path.write_bytes(content)
        return path

    storage.make_dirs("data")
    assert storage.create_exclusive("data/part", data(b"first"), "attempts") is True
    second = data(b"second")
    assert storage.create_exclusive("data/part", second, "attempts") is False
    assert storage.read_bytes("data/part") == b"first"
    assert not isinstance(second, Path) or not second.exists()
    assert [info.path for info in storage.list()] == ["data/part"]


def test_of_eight_concurrent_writers_exactly_one_wins(storage: Storage) -> None:
    storage.make_dirs("data")
    for number in range(3):
        gate = threading.Barrier(8)

        def create(writer: int, number: int = number, gate: threading.Barrier = gate) -> bool:
            mine: Storage = pickle.loads(pickle.dumps(storage))  # noqa: S301
            mine.exists("warm")
            gate.wait()
            return mine.create_exclusive(f"data/{number}", b"%d" % writer * 1000, "attempts")

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(create, range(8)))
        assert sum(won) == 1
        assert storage.read_bytes(f"data/{number}") == b"%d" % won.index(True) * 1000
    assert not list(storage.list("attempts"))


def test_a_run_without_its_attempts_folder_creates_nothing(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    with pytest.raises(DataError, match="another run took over"):
        storage.create_exclusive("part", b"x", "attempts")
    assert not storage.exists("part")
    assert not (tmp_path / "attempts").exists()
    storage.replace("part", b"winner")
    assert storage.create_exclusive("part", b"x", "attempts") is False
    assert storage.read_bytes("part") == b"winner"


def test_a_lost_link_reply_counts_as_won(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def link_then_fail(source: str, target: str) -> None:
        real(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    (tmp_path / "attempts").mkdir()
    monkeypatch.setattr(os, "link", link_then_fail)
    assert Storage(str(tmp_path)).create_exclusive("part", b"x", "attempts") is True


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "no space left"), (errno.EACCES, "permission denied"), (errno.EPERM, "no hard links")],
)
def test_errors_say_where_what_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    def fail(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    (tmp_path / "attempts").mkdir()
    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(DataError, match=words) as caught:
        Storage(str(tmp_path)).create_exclusive("part", b"x", "attempts")
    assert str(tmp_path / "part") in str(caught.value)
    assert list(tmp_path.rglob("*")) == [tmp_path / "attempts"]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "attempts").mkdir()
    monkeypatch.setattr(os, "fsync", fail)
    storage = Storage(str(tmp_path))
    for write in (storage.replace, lambda path, data: storage.create_exclusive(path, data, "attempts")):
        with pytest.raises(DataError, match="no space left"):
            write("part", b"x")
    assert list(tmp_path.rglob("*")) == [tmp_path / "attempts"]


def test_missing_things_are_data_errors(storage: Storage) -> None:
    for call in (storage.read_bytes, storage.size, storage.open):
        with pytest.raises(DataError, match="gone"):
            call("gone")


def test_a_missing_bucket_is_named(s3: str) -> None:
    with pytest.raises(DataError, match="s3://no-such-bucket/x"):
        Storage("s3://no-such-bucket").read_bytes("x")
    with pytest.raises(DataError, match="s3://no-such-bucket/x"):
        Storage("s3://no-such-bucket").create_exclusive("x", b"", "")


@pytest.mark.slow
def test_an_unreachable_store_is_said_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ENDPOINT_URL": "http://127.0.0.1:9", "ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with pytest.raises(DataError, match="s3://bucket/x: the store cannot be reached"):
        Storage("s3://bucket").read_bytes("x")


def test_the_hub_is_read_only_and_offline_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage("hf://datasets/org/name")
    assert storage.url("data/x.parquet") == "hf://datasets/org/name/data/x.parquet"
    with pytest.raises(DataError, match="only reads"):
        storage.replace("x", b"")
    with pytest.raises(DataError, match="HF_HUB_OFFLINE"):
        storage.read_bytes("x")


def test_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Storage("out/").root == str(tmp_path / "out")
    assert Storage("file:///a%20b/").root == "/a b"
    assert Storage("s3://bucket/a//b/").url("c") == "s3://bucket/a/b/c"
    assert Storage("s3://bucket").root == "s3://bucket"
    again = pickle.loads(pickle.dumps(Storage("out")))  # noqa: S301
    assert again.root == str(tmp_path / "out")
    storage, path = storage_for("out/x.parquet")
    assert storage.url(path) == str(tmp_path / "out/x.parquet")
    storage, path = storage_for("gs://bucket/a/b")
    assert (storage.root, path) == ("gs://bucket", "a/b")
    assert parse_url("gcs://bucket/a")[0] == "gs"
    with pytest.raises(SpecError, match="unknown storage"):
        parse_url("ftp://host/x")
    with pytest.raises(SpecError, match="no bucket"):
        parse_url("s3:///x")
    with pytest.raises(ValueError, match="below the root"):
        storage.url("../x")


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    assert [info.path for info in Storage(str(tmp_path)).list()] == ["a/x", "b/x"]


def test_what_another_run_sweeps_while_it_is_written_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, swept = os.fsync, []

    def sweep_once(descriptor: int) -> None:
        fsync(descriptor)
        if not swept:
            swept.extend(tmp_path.glob(".*.tmp"))
            for each in swept:
                each.unlink()

    monkeypatch.setattr(os, "fsync", sweep_once)
    Storage(str(tmp_path)).replace("file", b"content")
    assert len(swept) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"content"
    with pytest.raises(DataError):
        Storage(str(tmp_path)).replace("no folder/file", b"content")
