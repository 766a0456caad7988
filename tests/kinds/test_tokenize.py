"""The tokenize job from its file to the finished folder, with workers in this process: which rows become which examples
of which part, and what is said of the others."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from transformers import AutoTokenizer

from hfray.data.tokens import read_tokens
from hfray.errors import DataError, ErrorRateExceeded, HfrayError, SpecError
from hfray.inference.receipt import Receipt, ShardFailure
from hfray.kinds.progress import Progress
from hfray.kinds.report import Report
from hfray.kinds.tokenize import TokenizeRun
from hfray.spec.tokenize import TokenizeJob
from tests.kinds import in_process
from tests.models.support import letter_tokenizer

Answers = Iterator[Receipt | ShardFailure]


class Office:
    """Runs jobs over rows in shards of 10. `deal` may change which answers come back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: list[tuple[str, int]] = []
        self.deal: Callable[[Answers], Answers] = lambda answers: answers
        letter_tokenizer().save_pretrained(folder / "tokenizer")
        self.write(text=[f"text {number}" for number in range(50)])

    def write(self, name: str = "in.parquet", **columns: Any) -> None:
        pq.write_table(pa.table(columns), self.folder / name)

    def run(self, *, restart: bool = False, retry_errors: bool = False, **changes: Any) -> Report:
        spec: dict[str, Any] = {
            "name": "office",
            "model": {"path": str(self.folder / "tokenizer")},
            "mode": "plain",
            "input": {"path": str(self.folder / "in.parquet")},
            "output": {"path": str(self.out)},
            "shard_rows": 10,
        }
        job = TokenizeJob.model_validate(spec | changes)
        with Progress(Console(file=io.StringIO()), quiet=True) as progress:
            return TokenizeRun(job, progress, job_path="job.yaml", log_path="", debug=False).run(
                restart=restart, retry_errors=retry_errors
            )

    def run_shards(self, cluster: Any, shards: Sequence[int], make_worker: Any, workers: Any, **how: Any) -> Answers:
        worker = make_worker(lambda tick: None, lambda facts: None)

        def answers() -> Answers:
            for shard in shards:
                self.done.append((how["method"], shard))
                yield getattr(worker, how["method"])(shard)

        yield from self.deal(answers())

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def rows(self, split: str = "train") -> list[dict[str, Any]]:
        parts = sorted((self.out / "data" / split).glob("part-*"))
        return [row for part in parts for row in pq.read_table(part).to_pylist()]

    def texts(self, split: str = "train") -> list[str]:
        tokenizer = AutoTokenizer.from_pretrained(self.out / "tokenizer")
        return [decoded(tokenizer, row["input_ids"]) for row in self.rows(split)]

    def errors(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.out / "errors.parquet").to_pylist()
        return rows

    def parts(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.out)): path.read_bytes() for path in (self.out / "data").rglob("*.parquet")}


def decoded(tokenizer: Any, ids: list[int]) -> str:
    """Its pieces are letters, and it has no decoder to put them together."""
    return str(tokenizer.decode(ids, skip_special_tokens=True)).replace(" ##", "")


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Office:
    each = Office(tmp_path)
    in_process.use(monkeypatch, each.run_shards)
    return each


# -- one phase


def test_a_part_is_a_shard_and_anyone_reads_it(office: Office) -> None:
    report = office.run()
    assert office.done == [("tokenize", shard) for shard in range(5)]
    assert office.texts() == [f"text {number}" for number in range(50)]
    data = datasets.load_dataset("parquet", data_dir=str(office.out / "data"), cache_dir=str(office.folder / "cache"))
    tokenizer = letter_tokenizer()
    assert data["train"]["input_ids"][:] == [tokenizer(f"text {number}")["input_ids"] for number in range(50)]
    assert report.corpus is not None
    assert (report.rows, report.corpus.documents, report.corpus.source_rows) == (50, 50, 50)
    assert report.tokens == sum(len(row["input_ids"]) for row in office.rows())
    assert report.corpus.samples[0] == "[CLS] t ##e ##x ##t 0 [SEP]"
    assert report.corpus.steps(8) == 7


def test_the_second_run_finds_nothing_to_do(office: Office) -> None:
    office.run()
    files = {path: path.stat().st_mtime_ns for path in office.out.rglob("*")}
    office.done.clear()
    assert "already complete" in office.run().message
    assert office.done == []
    assert {path: path.stat().st_mtime_ns for path in office.out.rglob("*")} == files


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_length": 32}, "spec.max_length: null -> 32"),
        ({"split": {"validation": 0.5}}, "spec.split"),
        ({"mode": {"name": "plain", "padding": "max_length"}}, "spec.mode.padding"),
    ],
)
def test_another_job_is_refused(office: Office, changes: dict[str, Any], said: str) -> None:
    office.run()
    with pytest.raises(SpecError, match=said):
        office.run(**changes)
    assert office.run(restart=True, **changes).status == "complete"


def test_another_tokenizer_is_another_job(office: Office) -> None:
    office.run()
    tokenizer = letter_tokenizer()
    tokenizer.add_tokens(["text"])
    tokenizer.save_pretrained(office.folder / "tokenizer")
    with pytest.raises(SpecError, match=r"tokenizer\.fingerprint"):
        office.run()
    tokens = read_tokens(str(office.out))
    with pytest.raises(SpecError, match=tokens.tokenizer.fingerprint[:16]):
        tokens.tokenizer.check_same(tokenizer, "other")
    tokens.tokenizer.check_same(letter_tokenizer(), "same")


def test_what_is_done_is_not_done_again(office: Office) -> None:
    def stop(answers: Answers) -> Answers:
        yield next(answers)
        yield next(answers)
        raise DataError("the night is over")

    office.deal = stop
    with pytest.raises(DataError, match="night"):
        office.run()
    assert json.loads((office.out / "report.json").read_text())["status"] == "failed"
    office.deal, office.done = (lambda answers: answers), []
    report = office.run()
    assert office.done == [("tokenize", shard) for shard in (2, 3, 4)]
    assert (report.rows, report.resumed_rows) == (50, 20)


def test_parts_without_receipts_tell_the_same(office: Office) -> None:
    texts: list[str | None] = ["word " * 40] * 50
    texts[7] = None
    office.write(text=texts)
    report = office.run(max_error_rate=0.5)
    assert (report.failed, report.truncated) == (1, 49)
    (office.out / "_SUCCESS").unlink()
    for file in (office.out / "_work" / "receipts").iterdir():
        file.unlink()
    office.done.clear()
    again = office.run(max_error_rate=0.5)
    assert office.done == []
    for fact in ("rows", "failed", "tokens", "truncated", "lengths", "error_types", "corpus"):
        assert getattr(again, fact) == getattr(report, fact), fact


# -- two phases


def test_splits_by_hash(office: Office) -> None:
    report = office.run(split={"validation": 0.3, "seed": 1})
    train, validation = office.texts(), office.texts("validation")
    assert sorted(train + validation) == sorted(f"text {number}" for number in range(50))
    assert 8 <= len(validation) <= 22
    assert train == sorted(train, key=lambda text: int(text.split()[1])), "rows keep their order"
    assert not (office.out / "_work" / "drafts").exists()
    assert report.corpus is not None
    assert [(split.name, split.examples) for split in report.corpus.splits] == [
        ("train", len(train)),
        ("validation", len(validation)),
    ]
    office.write(text=[f"text {number}" for number in range(100)])
    office.run(split={"validation": 0.3, "seed": 1}, restart=True)
    assert set(validation) <= set(office.texts("validation")), "a row stays in its split when others are added"


def test_equal_rows_are_in_one_split(office: Office) -> None:
    office.write(text=[f"text {number % 5}" for number in range(50)])
    office.run(split={"validation": 0.5, "seed": 2})
    train, validation = set(office.texts()), set(office.texts("validation"))
    assert train
    assert validation
    assert not train & validation


def test_the_first_of_equal_rows_stays(office: Office) -> None:
    office.write(text=[f"text {number % 7}" for number in range(50)], other=list(range(50)))
    report = office.run(deduplicate=True)
    assert office.texts() == [f"text {number}" for number in range(7)]
    assert report.corpus is not None
    assert report.corpus.left_out == {"deduplicate": 43}


def test_a_shuffle_keeps_every_row(office: Office) -> None:
    office.run(shuffle=True)
    texts = office.texts()
    assert sorted(texts) == sorted(f"text {number}" for number in range(50))
    assert texts != sorted(texts, key=lambda text: int(text.split()[1]))
    first = office.parts()
    office.run(shuffle=True, restart=True)
    assert office.parts() == first
    office.run(shuffle=True, seed=1, restart=True)
    assert office.texts() != texts


def test_names_of_labels_are_collected_from_all_shards(office: Office) -> None:
    names = ["red", "blue", "green", "amber"]
    office.write(text=[f"text {number}" for number in range(40)], label=[names[number // 10] for number in range(40)])
    office.run()
    assert read_tokens(str(office.out)).labels == ("amber", "blue", "green", "red")
    assert [row["labels"] for row in office.rows()] == [3] * 10 + [1] * 10 + [2] * 10 + [0] * 10


@pytest.mark.parametrize("shuffle", [False, True])
def test_windows_are_examples_of_one_document(office: Office, shuffle: bool) -> None:
    contexts = ["word " * 40, "short", "word " * 90]
    office.write(question=["who is it", "what", "where"], context=contexts)
    report = office.run(mode={"name": "windows", "stride": 4}, max_length=32, shuffle=shuffle)
    assert report.corpus is not None
    assert report.corpus.documents == 3
    assert report.rows == len(office.rows()) > 10
    tokens = sum(len(row["input_ids"]) for row in office.rows())
    assert (report.tokens, report.truncated) == (tokens, 0)


def test_tags_and_several_labels_are_collected(office: Office) -> None:
    words = [["one", "two"], ["three"]] * 5
    office.write(text=words, tags=[["B-X", "O"], ["O"]] * 5)
    office.run(mode="words")
    assert read_tokens(str(office.out)).labels == ("B-X", "O")
    one = office.rows()[0]["labels"]
    assert [label for label in one if label != -100] == [0, 1]
    office.write(text=["a", "b", "c"], label=[["x", "y"], [], ["y"]])
    office.run(restart=True)
    assert [row["labels"] for row in office.rows()] == [[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]]


def test_labels_that_are_listed_need_one_phase(office: Office) -> None:
    office.write(text=["a", "b", "c"], label=["x", "z", "y"])
    report = office.run(mode={"name": "plain", "labels": ["x", "y"]}, max_error_rate=0.5)
    assert {method for method, _ in office.done} == {"tokenize"}
    assert [row["labels"] for row in office.rows()] == [0, 1]
    assert report.error_types == {"UnknownLabel": 1}
    assert "'z' is not in labels" in office.errors()[0]["error"]["message"]


def test_packed_sequences_are_full_and_lose_nothing(office: Office) -> None:
    report = office.run(
        mode={"name": "packed", "append_eos": False}, max_length=32, split={"validation": 0.2}, shuffle=True
    )
    rows = office.rows() + office.rows("validation")
    assert {len(row["input_ids"]) for row in rows} == {32}
    starts = sum(row["position_ids"].count(0) for row in rows)
    assert starts >= 50
    assert report.padded_tokens == 32 * len(rows)
    assert report.corpus is not None
    assert report.corpus.documents == 50
    assert report.tokens == sum(len(letter_tokenizer()(f"text {number}")["input_ids"]) for number in range(50))


def test_a_killed_run_goes_on_in_its_second_phase(office: Office) -> None:
    def stop(answers: Answers) -> Answers:
        for answer in answers:
            yield answer
            if office.done[-1] == ("assemble", 1):
                raise DataError("the night is over")

    office.deal = stop
    with pytest.raises(DataError, match="night"):
        office.run(shuffle=True, deduplicate=True)
    office.deal, office.done = (lambda answers: answers), []
    office.run(shuffle=True, deduplicate=True)
    assert office.done == [("assemble", part) for part in (2, 3, 4)]
    resumed = office.parts()
    office.run(shuffle=True, deduplicate=True, restart=True)
    assert office.parts() == resumed


# -- inputs


def test_a_saved_data_set_keeps_its_splits(office: Office) -> None:
    saved = office.folder / "saved"
    datasets.DatasetDict(
        train=datasets.Dataset.from_dict({"text": [f"text {n}" for n in range(25)]}),
        test=datasets.Dataset.from_dict({"text": [f"test {n}" for n in range(13)]}),
    ).save_to_disk(saved)
    for shuffle in (False, True):
        report = office.run(input={"path": str(saved)}, shuffle=shuffle, restart=True)
        assert sorted(office.texts()) == sorted(f"text {n}" for n in range(25))
        assert sorted(office.texts("test")) == sorted(f"test {n}" for n in range(13))
        assert report.corpus is not None
        assert [(split.name, split.parts) for split in report.corpus.splits] == [("train", 3), ("test", 2)]
    office.run(input={"path": str(saved), "split": "test"}, restart=True)
    assert office.texts("test") == [f"test {n}" for n in range(13)]
    for changes, key in (
        ({"split": {"test": 0.1}}, "split"),
        ({"input": {"path": str(saved), "limit": 3}}, r"input\.limit"),
    ):
        with pytest.raises(SpecError, match=rf"^{key}: the data set has"):
            office.run(**({"input": {"path": str(saved)}} | changes), restart=True)


def test_output_for_load_from_disk_and_back(office: Office) -> None:
    office.run(output={"path": str(office.out), "format": "datasets"}, split={"test": 0.2})
    data = datasets.load_from_disk(str(office.out / "data"))
    assert set(data) == {"train", "test"}
    assert data["train"].num_rows + data["test"].num_rows == 50
    again = [decoded(letter_tokenizer(), ids) for ids in data["test"]["input_ids"]]
    assert set(again) < {f"text {number}" for number in range(50)}


def test_a_task_chooses_the_mode_and_a_pair_its_columns(office: Office) -> None:
    office.write(text=["a b", "c"], text_pair=["d", "e f"], label=[1, 0])
    office.run(task="text-classification")
    tokenizer = letter_tokenizer()
    assert [row["input_ids"] for row in office.rows()] == tokenizer(["a b", "c"], ["d", "e f"])["input_ids"]
    assert [row["labels"] for row in office.rows()] == [1, 0]


# -- what is wrong


def test_failed_rows_are_named_with_file_and_row(office: Office) -> None:
    texts: list[Any] = [f"text {number}" for number in range(50)]
    texts[3], texts[27] = None, "\0"
    office.write(text=texts, id=list(range(50)))
    for changes in ({}, {"split": {"validation": 0.2}}):
        report = office.run(
            max_error_rate=0.1, input={"path": str(office.folder / "in.parquet"), "sample": 49}, restart=True, **changes
        )
        found = {(row["row"], row["id"], row["error"]["type"]) for row in office.errors()}
        assert found <= {(3, 3, "NullText"), (27, 27, "InvalidText")}
        assert report.failed == len(found) >= 1
        assert all(row["file"].endswith("in.parquet") for row in office.errors())
        assert len(office.rows()) + (len(office.rows("validation")) if changes else 0) == 49 - len(found)


def test_too_many_failed_rows_end_the_job(office: Office) -> None:
    office.write(text=["a", None, None, "b"])
    with pytest.raises(ErrorRateExceeded, match=r"2 rows failed \(NullText 2\).*_work/errors"):
        office.run()
    assert not (office.out / "_SUCCESS").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input": {"where": "n > 100"}}, r"of 50 rows: input\.where left out 50$"),
        (
            {"input": {"where": "n > 100", "sample": 10}},
            r"of 50 rows: input\.sample left out 40, input\.where left out 10$",
        ),
        ({"input": {"where": "n > 100"}, "shuffle": True}, r"input\.where left out 50$"),
        ({"input": {"select": "60:"}}, r"of 0 rows: no rows$"),
    ],
)
def test_a_job_without_rows_says_which_step_took_them(office: Office, changes: dict[str, Any], said: str) -> None:
    office.write(text=["a"] * 50, n=list(range(50)))
    changes["input"] |= {"path": str(office.folder / "in.parquet")}
    with pytest.raises(SpecError, match=said):
        office.run(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mode": "seq2seq"}, "mode seq2seq: there is no column 'target'"),
        ({"input": {"columns": {"text": "body"}}}, "has no column 'body'"),
        ({"input": {"where": "size > 3"}}, r"input\.where: there is no column 'size'"),
        ({"mode": "chat"}, "chat"),
        ({"model": {"path": "/nowhere"}}, "there is no folder"),
    ],
)
def test_mistakes_are_found_before_a_worker_starts(office: Office, changes: dict[str, Any], said: str) -> None:
    if "input" in changes:
        changes["input"] |= {"path": str(office.folder / "in.parquet")}
    with pytest.raises(HfrayError, match=said):
        office.run(**changes)
    assert office.done == []


def test_an_unreadable_file_is_named(office: Office) -> None:
    (office.folder / "bad.parquet").write_bytes((office.folder / "in.parquet").read_bytes()[:-10])
    paths = [str(office.folder / "bad.parquet"), str(office.folder / "in.parquet")]
    with pytest.raises(DataError, match=r"bad\.parquet"):
        office.run(input={"path": paths})
    report = office.run(input={"path": paths, "skip_bad_files": True})
    assert report.rows == 50
    assert [failure.path.rpartition("/")[2] for failure in report.file_failures] == ["bad.parquet"]


def test_retrying_errors_is_refused(office: Office) -> None:
    office.run()
    with pytest.raises(SpecError, match="--restart"):
        office.run(retry_errors=True)
    assert (office.out / "_SUCCESS").exists()


def test_a_file_that_is_lost_on_the_way_leaves_its_parts_out(office: Office) -> None:
    """Its first shard is gone, in a job whose parts `datasets` must find all the same."""
    office.write("a.parquet", text=[f"a {number}" for number in range(20)])
    office.write("b.parquet", text=[f"b {number}" for number in range(20)])
    lost = office.folder / "a.parquet"

    def lose(answers: Answers) -> Answers:
        lost.write_bytes(lost.read_bytes()[:-1] + b"X")
        yield from answers

    office.deal = lose
    report = office.run(
        input={"path": [str(lost), str(office.folder / "b.parquet")], "skip_bad_files": True},
        output={"path": str(office.out), "format": "datasets"},
    )
    assert report.rows == 20
    assert [failure.path for failure in report.file_failures] == [str(lost)]
    assert datasets.load_from_disk(str(office.out / "data"))["train"].num_rows == 20
