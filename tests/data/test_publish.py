"""Files at the top of an output: whole, in order, one owner, and gone when the job starts over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hfray.data import publish as publish_module
from hfray.data.layout import Layout
from hfray.data.ledger import Ledger
from hfray.data.publish import draft_folder, publish, published, unpublish
from hfray.errors import DataError

LAST = ("config.json", "hfray.json")


def ledger_at(url: str, fingerprint: str = "f" * 64) -> Ledger:
    each = Ledger(url, "parquet", fingerprint, layout=Layout("_work", "parquet"))
    each.open({"fingerprint": fingerprint})
    return each


@pytest.fixture(params=["local", "s3"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    return ledger_at(str(tmp_path / "out") if request.param == "local" else request.getfixturevalue("s3") + "/out")


def fill(folder: Path, names: tuple[str, ...], text: str = "x") -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{text} {name}")
        (folder / name).chmod(0o600)


def top(ledger: Ledger) -> list[str]:
    return [info.path for info in ledger.storage.list("") if not info.path.startswith("_work/")]


def test_files_get_their_names(ledger: Ledger) -> None:
    with draft_folder(ledger) as folder:
        fill(folder, ("config.json", "model.safetensors", "1_Pooling/config.json", "hfray.json"))
        sizes = publish(ledger, folder, LAST)
    assert list(sizes) == ["1_Pooling/config.json", "model.safetensors", "config.json", "hfray.json"]
    assert sizes["config.json"] == len("x config.json")
    assert top(ledger) == sorted(sizes)
    assert ledger.read("1_Pooling/config.json") == b"x 1_Pooling/config.json"
    assert not folder.exists()
    if ledger.storage.is_local:
        assert ledger.storage.local_path("config.json").stat().st_mode & 0o044 == 0o044


def test_what_was_there_before_goes(ledger: Ledger) -> None:
    ledger.write("notes.txt", b"not ours")
    for text, names in (("a", ("config.json", "shard-1", "shard-2", "hfray.json")), ("b", ("config.json", "shard-1"))):
        with draft_folder(ledger) as folder:
            fill(folder, names, text)
            publish(ledger, folder, LAST)
    assert top(ledger) == ["config.json", "notes.txt", "shard-1"]
    assert ledger.read("shard-1") == b"b shard-1"
    unpublish(ledger, LAST)
    assert top(ledger) == ["notes.txt"]
    assert published(ledger) == []


@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_killed_at_any_file_it_is_no_model_and_the_next_run_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    ledger = ledger_at(str(tmp_path / "out"))
    names = ("a.safetensors", "b.safetensors", "config.json", "hfray.json")
    moves: list[str] = []
    move = publish_module._move

    def killed(ledger: Ledger, file: Path, name: str) -> None:
        if len(moves) == stop:
            raise KeyboardInterrupt
        moves.append(name)
        move(ledger, file, name)

    with draft_folder(ledger) as folder:
        fill(folder, (*names, "c.safetensors"), "old")
        publish(ledger, folder, LAST)
    monkeypatch.setattr(publish_module, "_move", killed)
    with draft_folder(ledger) as folder:
        fill(folder, names, "new")
        with pytest.raises(KeyboardInterrupt):
            publish(ledger, folder, LAST)
    assert ("config.json" in top(ledger)) == (stop == 3)
    assert "hfray.json" not in top(ledger)
    assert not any(ledger.read(name).startswith(b"old") for name in top(ledger))
    monkeypatch.undo()
    with draft_folder(ledger) as folder:
        fill(folder, names, "new")
        publish(ledger, folder, LAST)
    assert top(ledger) == sorted(names)


def test_another_owner_stops_it(ledger: Ledger) -> None:
    with draft_folder(ledger) as folder:
        fill(folder, ("config.json",))
        ledger.delete("_work/identity.json")
        other: Any = ledger_at(ledger.url, "e" * 64)
        with draft_folder(other) as theirs:
            fill(theirs, ("config.json",), "theirs")
            publish(other, theirs, LAST)
        with pytest.raises(DataError, match="was started over by another run; this one stops"):
            publish(ledger, folder, LAST)
    assert other.read("config.json") == b"theirs config.json"
