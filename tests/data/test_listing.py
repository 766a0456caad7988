from __future__ import annotations

from pathlib import Path

import pytest

from hfray.data.listing import format_of, list_files
from hfray.data.storage import Storage
from hfray.errors import SpecError

FILES = (
    "a/1.jsonl", "a/10.jsonl", "a/2.jsonl", "a/b/3.jsonl.gz", "a/b/c/4.jsonl", "a/_SUCCESS", "a/.hidden.jsonl",
    "a/_tmp/5.jsonl", "a/README.md", "p/x.parquet", "p/y.csv", "odd[1].jsonl", "lone.bin",
)  # fmt: skip


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    storage = Storage(str(tmp_path) if request.param == "local" else request.getfixturevalue("s3") + "/top")
    for name in FILES:
        storage.make_dirs(name.rpartition("/")[0])
        storage.replace(name, name.encode())
    return storage


def names(root: Storage, *paths: str, format: str = "auto") -> list[str]:
    files = list_files([root.url(path) for path in paths], format)
    return [file.url.removeprefix(root.root + "/") for file in files]


def test_files_folders_and_globs(root: Storage) -> None:
    everything = ["a/1.jsonl", "a/10.jsonl", "a/2.jsonl", "a/b/3.jsonl.gz", "a/b/c/4.jsonl"]
    assert names(root, "a") == everything
    assert names(root, "a/2.jsonl", "a", "a/1.jsonl") == ["a/2.jsonl", *(n for n in everything if n != "a/2.jsonl")]
    assert names(root, "a/*.jsonl") == everything[:3]
    assert names(root, "a/?.jsonl") == ["a/1.jsonl", "a/2.jsonl"]
    assert names(root, "a/[!1]*.jsonl") == ["a/2.jsonl"]
    assert names(root, "a/**/*.jsonl") == [n for n in everything if not n.endswith("gz")]
    assert names(root, "a/**/*.jsonl*") == everything
    assert names(root, "**/c/*") == ["a/b/c/4.jsonl"]
    assert names(root, "a/_tmp/*") == ["a/_tmp/5.jsonl"]
    assert names(root, "a/_tmp/5.jsonl") == ["a/_tmp/5.jsonl"]
    assert names(root, "odd[1].jsonl") == ["odd[1].jsonl"]
    assert names(root, "p", format="parquet") == ["p/x.parquet"]
    assert names(root, "lone.bin", format="text") == ["lone.bin"]


def test_sizes_and_versions(root: Storage) -> None:
    (file,) = list_files([root.url("a/1.jsonl")])
    assert file.size_bytes == 9
    assert file.version
    root.replace("a/1.jsonl", b"changed!!")
    (again,) = list_files([root.url("a/1.jsonl")])
    assert again.version != file.version


@pytest.mark.parametrize(
    ("path", "format", "words"),
    [
        ("a/1.jsnl", "auto", r"does not exist: did you mean .*a/1\.jsonl\?"),
        ("aa/b/1.jsonl", "auto", r"does not exist: did you mean .*/a\?"),
        ("zzzzzz", "auto", "does not exist: check the path"),
        ("a/*.csv", "auto", "no file matches"),
        ("p", "auto", r"x\.parquet is parquet but .*y\.csv is csv"),
        ("lone.bin", "auto", "format of .* cannot be told"),
        ("a", "csv", r"holds no csv files \(\.csv, \.tsv\), but .*1\.jsonl and 5 others"),
        ("a", "jsnl", "unknown format 'jsnl': did you mean 'jsonl'"),
    ],
)
def test_what_is_not_there_is_said(root: Storage, path: str, format: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        names(root, path, format=format)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="holds no files"):
        list_files([str(tmp_path)])


def test_suffixes() -> None:
    assert format_of("x.JSONL.gz") == "jsonl"
    assert format_of("x.parquet.gz") is None
    assert format_of("x") is None


def test_a_hub_id_gets_a_hint() -> None:
    with pytest.raises(SpecError, match="say `format: huggingface`"):
        list_files(["some-org/some-set"])
