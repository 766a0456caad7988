from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfray.errors import DataError, SpecError
from tests.data.reading import read_all
from tests.hub_stand_in import Repo, serve_hub

COMMIT = "a" * 40
ROWS = [{"text": f"row {n} 漢字", "label": n % 3} for n in range(2500)]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.disable_progress_bars()


def test_save_to_disk(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "set", num_shards=3)
    for format in ("huggingface", "auto"):
        found = read_all([tmp_path / "set"], format, shard_rows=400)
        assert found.rows == ROWS
        assert len(found.indexes) == 3


def test_a_shuffled_set_is_flattened_by_save_to_disk(tmp_path: Path) -> None:
    shuffled = datasets.Dataset.from_list(ROWS).shuffle(seed=0).select(range(100))
    shuffled.save_to_disk(tmp_path / "set")
    assert read_all([tmp_path / "set"]).rows == shuffled.to_list()


def test_an_indices_mapping_is_refused(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS[:5]).save_to_disk(tmp_path / "set")
    state = tmp_path / "set" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"_indices_files": [{"filename": "indices.arrow"}]}))
    with pytest.raises(DataError, match=r"flatten_indices\(\)"):
        read_all([tmp_path / "set"])


def test_a_state_that_names_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS[:5]).save_to_disk(tmp_path / "set")
    (tmp_path / "set" / "state.json").write_text('{"_data_files": [{"filename": "../../secret.arrow"}]}')
    with pytest.raises(DataError, match="outside the folder"):
        read_all([tmp_path / "set"])


def test_dataset_dict(tmp_path: Path) -> None:
    sets = {"train": datasets.Dataset.from_list(ROWS[:30]), "test": datasets.Dataset.from_list(ROWS[30:40])}
    datasets.DatasetDict(sets).save_to_disk(tmp_path / "set")
    assert read_all([tmp_path / "set"], split="test").rows == ROWS[30:40]
    assert read_all([tmp_path / "set" / "train"]).rows == ROWS[:30]
    with pytest.raises(SpecError, match=r"several splits \(train, test\)"):
        read_all([tmp_path / "set"])
    with pytest.raises(SpecError, match="no split 'dev': it has train, test"):
        read_all([tmp_path / "set"], split="dev")


@pytest.mark.parametrize("kind", ["parquet", "json", "csv"])
def test_a_folder_of_data_files_is_split_by_the_librarys_own_rules(tmp_path: Path, kind: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name, rows in (
        ("train-00000-of-00002", ROWS[:10]),
        ("train-00001-of-00002", ROWS[10:15]),
        ("test-00000-of-00001", ROWS[15:]),
    ):
        getattr(datasets.Dataset.from_list(rows), f"to_{kind}")(data / f"{name}.{kind}")
    (tmp_path / "README.md").write_text("# A data set\n")
    found = read_all([tmp_path], "huggingface", split="train", shard_rows=4)
    assert [row["text"] for row in found.rows] == [row["text"] for row in ROWS[:15]]
    with pytest.raises(SpecError, match="several splits"):
        read_all([tmp_path], "huggingface")


def test_the_files_a_card_names(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "two.jsonl").write_text('{"a": 2}\n')
    (tmp_path / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: two.jsonl\n---\n")
    assert read_all([tmp_path], "huggingface").rows == [{"a": 2}]


def test_a_script_is_never_run(tmp_path: Path) -> None:
    folder = tmp_path / "myset"
    folder.mkdir()
    (folder / "myset.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\n")
    with pytest.raises((SpecError, DataError), match="myset"):
        read_all([folder], "huggingface")
    assert not (tmp_path / "canary").exists()


def test_an_unreachable_hub_is_one_clear_line() -> None:
    with pytest.raises(DataError, match=r"cannot look up the data set some-org/some-set: .*Hub") as caught:
        read_all(["some-org/some-set"], "huggingface")
    assert "\n" not in str(caught.value)


def test_paths_that_are_no_data_sets(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="neither a folder nor a data set"):
        read_all([tmp_path / "gone" / "away"], "huggingface")


@pytest.mark.slow
def test_a_hub_id_is_resolved_once_to_a_commit_and_read_by_ranges(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    (root / "data").mkdir(parents=True)
    (root / "README.md").write_text("---\nlicense: mit\n---\n# A set\n")
    rows = pa.table({"n": range(200_000), "text": [f"row {n}" for n in range(200_000)]})
    pq.write_table(rows, root / "data" / "train-00000-of-00001.parquet", row_group_size=10_000, compression="none")
    pq.write_table(rows.slice(5, 2), root / "data" / "test-00000-of-00001.parquet")
    code = """
import json, sys
from hfray.data.formats import index_file, read_shard
from hfray.data.listing import list_files
from hfray.data.plan import Plan
from hfray.errors import SpecError

files = list_files(["org/set"], "huggingface", split="train")
plan = Plan([index_file(file, 1000, "/nonexistent") for file in files])
shard = read_shard(plan.shard(150), plan.schema)
try:
    list_files(["org/other"], "huggingface")
except SpecError as error:
    missing = str(error)
json.dump({"urls": [file.url for file in files], "num_rows": plan.num_rows, "rows": shard.rows()[:2],
           "missing": missing}, sys.stdout)
"""
    with serve_hub() as hub:
        hub.repos["datasets/org/set"] = Repo({COMMIT: root}, {"main": COMMIT})
        environment = os.environ | {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "home"),
        }
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stderr[-2000:] + "\n".join(hub.log)
    found = json.loads(done.stdout)
    assert found["urls"] == [f"hf://datasets/org/set@{COMMIT}/data/train-00000-of-00001.parquet"]
    assert found["num_rows"] == 200_000
    assert found["rows"] == rows.slice(150_000, 2).to_pylist()
    assert "org/other" in found["missing"]
    # Nobody fetched the whole file.
    reads = [line for line in hub.log if line.startswith("GET") and "parquet" in line]
    assert reads
    assert all("bytes=" in line for line in reads)
    assert not any("test-00000" in line for line in reads)
