"""A job that learns a tokenizer, as its user runs it: once, again, and with the mistakes that are made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer

from hfray.models.source import resolve_source
from hfray.models.tokenizers import fingerprint, load_tokenizer

pytestmark = pytest.mark.slow

HFRAY = Path(sys.executable).with_name("hfray")
TEXTS = [
    f"The {word} of the {other} goes on." for word in ("house", "river", "song") for other in ("north", "sea", "sun")
]


def run(folder: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    spec: dict[str, Any] = {
        "kind": "tokenize",
        "name": "words",
        "mode": {"name": "tokenizer", "algorithm": "byte-bpe", "vocab_size": 300, "chat_template": "chatml"},
        "input": {"path": "texts.jsonl"},
        "output": {"path": "out"},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(spec | changes))
    return subprocess.run(
        [HFRAY, "run", "job.yaml"], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows: list[Any] = [*TEXTS, None, ["two in", "one row"]]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows * 20))
    return tmp_path


def test_it_is_learned_once_and_loads_anywhere(folder: Path) -> None:
    done = run(folder)
    assert done.returncode == 0, done.stderr
    tokenizer = AutoTokenizer.from_pretrained(folder / "out" / "tokenizer")
    text = "The river\n of the moon \N{SLIGHTLY SMILING FACE}"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer(TEXTS[0])["input_ids"]) < len(TEXTS[0]) / 3
    assert "<|im_start|>user\nhi<|im_end|>" in tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False
    )
    facts = json.loads((folder / "out" / "report.json").read_text())["vocabulary"]
    assert (facts["size"], facts["num_texts"], facts["num_skipped"]) == (len(tokenizer), 20 * (len(TEXTS) + 2), 20)
    assert facts["fingerprint"] == fingerprint(
        load_tokenizer(resolve_source(str(folder / "out/tokenizer"), None, kind="tokenizer"))
    )
    files = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*")}
    again = run(folder)
    assert again.returncode == 0
    assert "already complete" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*")} == files
    other = run(folder, mode={"name": "tokenizer", "vocab_size": 310})
    assert other.returncode == 2
    assert "spec.mode.vocab_size: 300 -> 310" in other.stderr


def test_what_cannot_be_learned(folder: Path) -> None:
    done = run(folder, input={"path": "texts.jsonl", "where": "text is None"})
    assert (done.returncode, "nothing to train a tokenizer on" in done.stderr) == (4, True), done.stderr
    assert not (folder / "out" / "_SUCCESS").exists()
    done = run(folder, input={"path": "texts.jsonl", "columns": {"body": "text"}})
    assert (done.returncode, "there is no column 'text'" in done.stderr) == (2, True), done.stderr
