from __future__ import annotations

from pathlib import Path

import pytest

from hfray.data.storage import Storage
from hfray.errors import SpecError
from tests.data.reading import read_all


def fill(root: Storage) -> None:
    for name in ("cats/1.png", "cats/2.JPG", "dogs/1.png", "top.webp", "notes.txt", "_skipped/x.png"):
        folder = name.rpartition("/")[0]
        root.make_dirs(folder)
        root.replace(name, f"bytes of {name}".encode())


@pytest.mark.parametrize("where", ["local", "s3"])
def test_a_folder(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    root = Storage(str(tmp_path / "in") if where == "local" else request.getfixturevalue("s3") + "/in")
    fill(root)
    for format in ("images", "auto"):
        found = read_all([root.root] if format == "images" else [root.url("cats")], format, spool=tmp_path / "spool")
        if format == "auto":
            assert [row["path"] for row in found.rows] == ["1.png", "2.JPG"]
            continue
        assert found.rows == [
            {"path": "cats/1.png", "label": "cats", "image": b"bytes of cats/1.png"},
            {"path": "cats/2.JPG", "label": "cats", "image": b"bytes of cats/2.JPG"},
            {"path": "dogs/1.png", "label": "dogs", "image": b"bytes of dogs/1.png"},
            {"path": "top.webp", "label": None, "image": b"bytes of top.webp"},
        ]
        assert found.table.column_names == ["path", "label"]


def test_a_glob_and_a_single_file(tmp_path: Path) -> None:
    fill(Storage(str(tmp_path / "in")))
    found = read_all([tmp_path / "in" / "*" / "1.png"], "images", spool=tmp_path / "spool")
    assert [row["path"] for row in found.rows] == ["cats/1.png", "dogs/1.png"]
    found = read_all([tmp_path / "in/top.webp"], "images", spool=tmp_path / "spool")
    assert found.rows == [{"path": "top.webp", "label": None, "image": b"bytes of top.webp"}]
    with pytest.raises(SpecError, match=r"did you mean .*/in"):
        read_all([tmp_path / "inn"], "images")


def test_an_image_that_is_gone_is_a_bad_row(tmp_path: Path) -> None:
    from hfray.data.formats import read_shard

    fill(Storage(str(tmp_path / "in")))
    found = read_all([tmp_path / "in"], "images", shard_rows=10, spool=tmp_path / "spool")
    (tmp_path / "in/cats/2.JPG").unlink()
    shard = read_shard(found.plan.shard(0), found.plan.schema)
    assert {row: error.type for row, error in shard.errors.items()} == {1: "UnreadableImage"}
    assert shard.rows()[1]["image"] is None
    assert shard.rows()[2]["image"] == b"bytes of dogs/1.png"


def test_real_photos(shared_data: Path, tmp_path: Path) -> None:
    found = read_all([shared_data / "photos"], "auto", spool=tmp_path)
    assert len(found.rows) == len([*(shared_data / "photos").glob("*.png"), *(shared_data / "photos").glob("*.jpg")])
    for row in found.rows:
        assert row["image"] == (shared_data / "photos" / row["path"]).read_bytes()
