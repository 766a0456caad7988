"""What a training job finds out of its tokens."""

from __future__ import annotations

from pathlib import Path

from hfray.data.tokens import read_tokens
from hfray.kinds.train_tokens import Tokenised, largest_label
from tests.training.support import PLAIN, plain_rows, write_tokens


def test_a_class_that_only_one_split_has_counts(tmp_path: Path) -> None:
    rows = plain_rows(9)
    path = write_tokens(str(tmp_path), {"train": [rows[:2], rows[2:5]], "validation": [rows]}, PLAIN)
    train, validation = (Tokenised(path, name, read_tokens(path), None) for name in ("train", "validation"))
    assert largest_label([train]) == 4
    assert largest_label([train, validation]) == 8
