from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from hfray.errors import DataError, SpecError
from tests.data.reading import read_all

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
    for name, rows in (("train-00000-of-00002", ROWS[:10]), ("train-00001-of-00002", ROWS[10:15]), ("test", ROWS[15:])):
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
