from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest

from hfray.data.formats import index_file
from hfray.data.listing import list_files
from hfray.errors import DataError
from tests.data.reading import read_all


def write(path: Path, *lines: str | bytes, end: bytes = b"\n") -> Path:
    data = end.join(line.encode() if isinstance(line, str) else line for line in lines) + end
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.ndjson"])
@pytest.mark.parametrize("shard_rows", [1, 2, 3, 100])
def test_rows_come_back_in_order(tmp_path: Path, name: str, shard_rows: int) -> None:
    rows = [{"id": n, "text": f"Zeile {n} 漢字 🙂\u2028x", "nested": {"a": [1, 2.5], "b": None}} for n in range(7)]
    file = write(
        tmp_path / name,
        "\ufeff" + json.dumps(rows[0]),
        "",
        *map(json.dumps, rows[1:4]),
        "  ",
        *(json.dumps(row, ensure_ascii=False) for row in rows[4:]),
        end=b"\r\n",
    )
    found = read_all([file], shard_rows=shard_rows, spool=tmp_path / "spool")
    assert found.rows == rows
    assert found.errors == {}
    assert found.table["text"].to_pylist() == [row["text"] for row in rows]
    assert found.table["nested"].to_pylist() == [{"a": [1.0, 2.5], "b": None}] * 7
    assert (tmp_path / "spool").exists() == name.endswith(".gz")


def test_one_schema_over_the_whole_file(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.jsonl",
        '{"n": null, "x": 1, "mixed": 1, "text": "a", "when": null}',
        '{"n": null, "x": 2.5, "mixed": {"a": 1}, "text": 5}',
        '{"late": [null], "text": null, "big": 1}',
        '{"late": [1], "text": true, "big": 123456789012345678901234567890, "empty": {}}',
    )
    found = read_all([file], shard_rows=1)
    assert found.plan.schema == pa.schema(
        {
            "n": pa.null(),
            "x": pa.float64(),
            "mixed": pa.string(),
            "text": pa.string(),
            "when": pa.null(),
            "late": pa.list_(pa.int64()),
            "big": pa.string(),
            "empty": pa.string(),
        }
    )
    assert found.table["mixed"].to_pylist() == ["1", '{"a": 1}', None, None]
    assert found.table["text"].to_pylist() == ["a", "5", None, "true"]
    assert found.table["big"].to_pylist()[3] == "123456789012345678901234567890"
    # A task sees what was written: it must be able to say that 5 is no text.
    assert [row["text"] for row in found.rows] == ["a", 5, None, True]


def test_bad_lines_are_bad_rows(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.jsonl",
        '{"text": "good"}',
        '{"text": ',
        "[1, 2]",
        b'{"text": "caf\xe9"}',
        '{"text": "lone \\ud800 pair \\ud83d\\ude00"}',
        '{"text": "NUL \\u0000"}',
        "[" * 100_000,
        '{"text": ' + "1" * 5000 + "}",
        '{"\\udc00": 1}',
        '{"text": "last"}',
    )
    found = read_all([file], shard_rows=4)
    assert found.error_types == {
        1: "MalformedRow",
        2: "MalformedRow",
        3: "InvalidText",
        4: "InvalidText",
        6: "MalformedRow",
        7: "MalformedRow",
        8: "InvalidText",
    }
    assert found.table["text"].to_pylist() == [
        "good",
        None,
        None,
        "caf\ufffd",
        "lone \ufffd pair 😀",
        "NUL \x00",
        None,
        None,
        None,
        "last",
    ]
    assert "character 10" in found.errors[1].message
    assert "an array" in found.errors[2].message
    assert "'text'" in found.errors[4].message


def test_a_json_array_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[\n{"a": 1},\n{"a": 2}\n]\n')
    with pytest.raises(DataError, match=r"a\.json: is one JSON array.*jq"):
        read_all([tmp_path / "a.json"])


@pytest.mark.parametrize("damage", ["cut", "flip", "not gzip"])
def test_a_damaged_gzip_is_named_and_leaves_no_spool(tmp_path: Path, damage: str) -> None:
    file = write(tmp_path / "a.jsonl.gz", *(json.dumps({"n": n, "x": hash(str(n))}) for n in range(5000)))
    data = file.read_bytes()
    middle = len(data) // 2
    file.write_bytes(
        {"cut": data[:middle], "flip": data[:middle] + b"\xff\xff\xff\xff" + data[middle + 4 :], "not gzip": b"{}\n"}[
            damage
        ]
    )
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: is truncated or not gzip"):
        read_all([file], spool=tmp_path / "spool")
    assert not list((tmp_path / "spool").iterdir())


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    def digest(path: Path) -> str:
        return index_file(list_files([str(path)])[0], 10, str(tmp_path / "spool")).digest

    plain = write(tmp_path / "a.jsonl", '{"a": 1}')
    zipped = write(tmp_path / "b.jsonl.gz", '{"a": 1}')
    other = write(tmp_path / "c.jsonl", '{"a": 2}')
    assert digest(plain) == digest(zipped) != digest(other)


def test_a_file_that_changed_since_its_index_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", '{"a": 1}', '{"a": 2}')
    found = read_all([file])
    from hfray.data.formats import read_shard

    write(file, '{"a": 1}')
    with pytest.raises(DataError, match="changed since"):
        read_shard(found.plan.shard(0), found.plan.schema)
    file.unlink()
    with pytest.raises(DataError, match="is gone"):
        read_shard(found.plan.shard(0), found.plan.schema)


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "b.jsonl").write_text("\n\n")
    found = read_all([tmp_path])
    assert (found.plan.num_rows, found.plan.num_shards) == (0, 0)


@pytest.mark.slow
def test_many_rows(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", *(f'{{"n": {n}, "text": "row {n}"}}' for n in range(100_000)))
    found = read_all([file], shard_rows=4096)
    assert found.table["n"].to_pylist() == list(range(100_000))


def test_real_files(shared_data: Path, tmp_path: Path) -> None:
    found = read_all([shared_data / "hh_rlhf_harmless" / "test.jsonl.gz"], shard_rows=500, spool=tmp_path)
    assert found.table.num_rows == 2312
    assert found.errors == {}
    found = read_all([shared_data / "scitldr_a" / "dev.jsonl"], shard_rows=100)
    assert found.table.num_rows == 619
    assert found.plan.schema.field("source").type == pa.list_(pa.string())
    assert found.rows[7]["source"] == found.table["source"][7].as_py()


def test_jsonl_on_an_object_store(s3: str, tmp_path: Path) -> None:
    from hfray.data.storage import Storage

    lines = "".join(json.dumps({"n": n, "text": "ü" * 50}) + "\n" for n in range(3000)).encode()
    Storage(s3).replace("in/a.jsonl", lines)
    Storage(s3).replace("in/b.jsonl.gz", gzip.compress(lines))
    found = read_all([s3 + "/in/*.jsonl*"], shard_rows=1000, spool=s3 + "/spool")
    assert found.table["n"].to_pylist() == [*range(3000), *range(3000)]
    assert found.indexes[1].spool is not None
    assert found.indexes[1].spool.startswith(s3 + "/spool/")
