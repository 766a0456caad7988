"""Every mistake is one plain sentence that names the key and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hfray.errors import SpecError
from hfray.spec.load import load_job
from hfray.spec.problems import close_or_known, close_to, shown
from tests.spec.jobs import GOOD

MISTAKES = [
    # unknown keys and names
    ("max_batch_tokens", "max_batch_token", "10: engine.max_batch_token: unknown key, did you mean max_batch_tokens?"),
    ("  top_k: 3", "  topk: 3", "6: task.topk: unknown key, did you mean top_k?"),
    ("workers:", "wrkers:", "11: wrkers: unknown key, did you mean workers?"),
    ("output: {", "gpus: 1\noutput: {", "9: gpus: unknown key, did you mean workers.gpus?"),
    ("{path: out/intents}", "{path: o, zzz: 1}", "9: output.zzz: unknown key; known: path, format"),
    ("text-classification", "text-clasification",
     "5: task.name: unknown name 'text-clasification', did you mean text-classification?"),
    ("name: batch", "name: bath", "10: engine.name: unknown name 'bath', did you mean batch?"),
    ("name: batch", "name: vllm", "10: engine.name: unknown name 'vllm'; known: batch, continuous, fake"),
    ("kind: score", "kind: scor", "1: kind: unknown kind 'scor', did you mean score?"),
    ("kind: score", "kind: 7", "1: kind: unknown kind 7; known: score, tokenize, train, export"),
    ("kind: score", "kind: [score]", "1: kind: unknown kind a list; known: score, tokenize, train, export"),
    ("output: {", "1: x\noutput: {", "9: 1: keys must be text; put them in quotes"),
    # what is missing
    ("kind: score\n", "", "1: kind: missing; known: score, tokenize, train, export"),
    ("output: {path: out/intents}\n", "", "1: output: missing; `hfray explain output` says what goes there"),
    ("  name: text-classification\n", "", "4: task.name: missing; `hfray explain task.name` says what goes there"),
    ("{path: some/model}", "{}", "3: model.path: missing; `hfray explain model.path` says what goes there"),
    # wrong values
    ("max: 2", "max: many", "11: workers.max: must be a whole number, not 'many'"),
    ("max: 2", "max: 1.5", "11: workers.max: must be a whole number, not 1.5"),
    ("max_batch_tokens: 4096", "max_batch_tokens: 0", "10: engine.max_batch_tokens: must be at least 1 or auto, not 0"),
    ("max_batch_tokens: 4096", "max_batch_tokens: much",
     "10: engine.max_batch_tokens: must be a whole number or auto, not 'much'"),
    ("top_k: 3", "top_k: [1]", "6: task.top_k: must be a whole number or all, not a list"),
    ("{path: some/model}", "{path: m, dtype: bf16}",
     "3: model.dtype: must be one of auto, float32, bfloat16, float16, not 'bf16', did you mean bfloat16?"),
    ("{path: some/model}", "{path: m, merge_adapter: maybe}",
     "3: model.merge_adapter: must be true or false, not 'maybe'"),
    ("{path: some/model}", "{path: 1234567}", "3: model.path: must be text, not 1234567; put it in quotes"),
    ("{path: some/model}", "{path: m, revision: 12e4}",
     "3: model.revision: must be text, not 120000.0; put it in quotes"),
    ("{path: some/model}", "{path: ''}", "3: model.path: must not be empty"),
    ("{path: some/model}", "some/model",
     "3: model: must be a section of keys such as {path: some/model}, not 'some/model'"),
    ("  name: text-classification\n  top_k: 3", "  fil-mask",
     "4: task.name: unknown name 'fil-mask', did you mean fill-mask?"),
    ("{path: some/model}", "", "3: model: must be a section of keys, not null"),
    ("workers: {min: 1, max: 2}", "workers: 4", "11: workers: must be a section of keys, not 4"),
    ("name: intents", "name: Intents!", "2: name: 'Intents!' must match ^[a-z0-9][a-z0-9._-]{0,63}$"),
    ("output: {", "max_error_rate: 5\noutput: {", "9: max_error_rate: must be at most 1, not 5"),
    ("output: {", "max_error_rate: .nan\noutput: {", "9: max_error_rate: must be a finite number, not NaN"),
    ("output: {", "shard_rows: 1e30\noutput: {", "9: shard_rows: must be a whole number below 2 ** 63, not 1e+30"),
    ("path: data.csv", "path: []", "8: input.path: must not be empty"),
    ("path: data.csv", "path: ''", "8: input.path.0: must not be empty"),
    ("path: data.csv", "path: [a.csv, 3]", "8: input.path.1: must be text, not 3; put it in quotes"),
    ("path: data.csv", "path: 3", "8: input.path: must be a path in quotes or a list of them"),
    ("path: data.csv", "path: a\n  delimiter: ab", "9: input.delimiter: may hold at most 1 characters"),
    # what does not go together
    ("min: 1", "min: 3", "11: workers.min: 3 is above workers.max, 2"),
    ("path: data.csv", "path: a\n  columns: {result: x}",
     "9: input.columns.result: the output writes a column of this name itself; choose another"),
    ("path: data.csv", "path: a\n  columns:\n    a: x\n    b: x",
     "11: input.columns.b: column 'x' is already renamed to 'a'"),
    ("path: data.csv", "path: a\n  format: text\n  split: train",
     "10: input.split: only for format huggingface, not text"),
    ("path: data.csv", "path: a\n  format: text\n  delimiter: ;", "10: input.delimiter: only for format csv, not text"),
    ("name: text-classification\n  top_k: 3", "name: feature-extraction\nmetrics: {label: y}",
     "6: metrics: task feature-extraction has no metrics; remove this section"),
    ("  top_k: 3", "  top_k: 3\nmetrics: {}", "7: metrics.label: missing: the column that results are compared with"),
    ("name: text-classification\n  top_k: 3", "name: perplexity\nmetrics: {label: y}",
     "6: metrics.label: task perplexity compares with nothing; write `metrics: {}`"),
]  # fmt: skip


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("job.yaml")


@pytest.mark.parametrize(("old", "new", "expected"), MISTAKES)
def test_one_mistake_is_one_line(write: Path, old: str, new: str, expected: str) -> None:
    assert old in GOOD
    write.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(SpecError) as caught:
        load_job(write)
    assert str(caught.value) == f"job.yaml:{expected}"


def test_several_mistakes_are_told_at_once_in_the_order_of_the_file(write: Path) -> None:
    write.write_text(GOOD.replace("top_k: 3", "topk: 3").replace("max: 2", "max: x").replace("intents\n", "I\n", 1))
    with pytest.raises(SpecError) as caught:
        load_job(write)
    assert [line.split(":")[1] for line in str(caught.value).splitlines()] == ["2", "6", "11"]


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["auto", "score"])
)
KEYS = st.sampled_from(["kind", "name", "path", "model", "task", "columns", "min", "top_k", "<<", "0"]) | st.text(
    max_size=3
)
VALUES = st.recursive(
    SCALARS, lambda each: st.lists(each, max_size=3) | st.dictionaries(KEYS, each, max_size=3), max_leaves=8
)
PLACES = st.sampled_from([
    "kind", "name", "model", "model.path", "model.dtype", "task", "task.name", "task.top_k", "task.labels", "input",
    "input.path", "input.columns", "input.limit", "output", "metrics", "engine", "engine.name", "workers", "seed",
    "new.a",
])  # fmt: skip


@given(st.dictionaries(PLACES, VALUES, max_size=3))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_written_the_answer_is_a_job_or_spec_errors_by_line(
    write: Path, changes: dict[str, object]
) -> None:
    value = yaml.safe_load(GOOD)
    for place, new in changes.items():
        *sections, last = place.split(".")
        inner = value
        for key in sections:
            if not isinstance(inner.get(key), dict):
                inner[key] = {}
            inner = inner[key]
        inner[last] = new
    write.write_text(yaml.safe_dump(value, sort_keys=False))
    try:
        load_job(write)
    except SpecError as error:
        for line in str(error).splitlines():
            assert line.startswith("job.yaml"), line
            assert "pydantic" not in line


def test_words_and_values() -> None:
    assert close_to("scroe", ["score", "train"]) == ", did you mean score?"
    assert close_to("xyz", ["score"]) == ""
    assert close_or_known("xyz", ["a", "b"]) == "; known: a, b"
    assert [shown(each) for each in (None, True, "a", {"a": 1}, [], "x" * 99)] == [
        "null", "true", "'a'", "a mapping of keys", "[]", f"'{'x' * 59}...",
    ]  # fmt: skip
