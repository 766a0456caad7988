from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from hfray.errors import DataError, RowError
from hfray.tasks.classification import label_of, label_scores_type, logits_items
from hfray.tasks.text import TextEncoder
from tests.tasks.support import stored_tokenizer

LABELS = ("0", "one", "7")


def test_a_name_goes_before_an_index():
    assert label_of("0", LABELS) == "0"
    assert label_of("7", LABELS) == "7"
    assert label_of("1", LABELS) == "one"
    assert label_of(np.int64(2), LABELS) == "7"


def test_open_labels_take_any_name_but_not_any_index():
    assert label_of("new", LABELS, closed=False) == "new"
    with pytest.raises(DataError, match="the 3 labels are '0', 'one', '7'"):
        label_of("9", LABELS, closed=False)
    with pytest.raises(DataError, match="'new'"):
        label_of("new", LABELS)


def test_many_labels_are_not_all_listed():
    with pytest.raises(DataError, match=r"the 100 labels are .*'label7', \.\.\."):
        label_of("x", [f"label{index}" for index in range(100)])


def test_items_of_a_row_or_its_first_error():
    tokenizer = stored_tokenizer("phi-3-mini")
    encoder = TextEncoder(tokenizer, 8, add_special_tokens=False)
    full, empty = encoder.encode(["a text", ""])
    row = logits_items(encoder, [full, full], "carry")
    assert len(row.items) == 2
    assert row.carry == "carry"
    failed = logits_items(encoder, [full, empty], None)
    assert isinstance(failed, RowError)
    assert failed.type == "EmptyText"
    error = RowError("x")
    assert logits_items(encoder, [full, error], None) is error


def test_the_type_of_results():
    assert label_scores_type() == pa.list_(pa.struct([("label", pa.string()), ("score", pa.float32())]))


def test_a_row_is_truncated_if_one_of_its_texts_is():
    tokenizer = stored_tokenizer("phi-3-mini")
    encoder = TextEncoder(tokenizer, 8, add_special_tokens=False)
    fits, cut = encoder.encode(["a text", "a text " * 8])
    assert not logits_items(encoder, [fits, fits], None).truncated
    assert logits_items(encoder, [fits, cut], None).truncated
