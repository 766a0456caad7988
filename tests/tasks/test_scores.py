"""Softmax, sigmoid and rankings at the edges of float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hfray.tasks.scores import ranked, sigmoid, softmax

LOGITS = np.array([[0.0, 1.0, -2.0], [1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], dtype=np.float32)


def test_functions_equal_torch_and_do_not_overflow() -> None:
    tensor = torch.from_numpy(LOGITS)
    assert softmax(LOGITS) == pytest.approx(tensor.softmax(-1).numpy(), abs=1e-6)
    assert sigmoid(LOGITS) == pytest.approx(tensor.sigmoid().numpy(), abs=1e-6)
    assert softmax(LOGITS).dtype == np.float32
    assert sigmoid(LOGITS).dtype == np.float32


def test_ranked_keeps_the_order_of_equal_scores() -> None:
    scores = np.array([0.2, 0.5, 0.2, 0.1], dtype=np.float32)
    assert [each["label"] for each in ranked("abcd", scores)] == ["b", "a", "c", "d"]
    assert ranked("abcd", scores, 1) == [{"label": "b", "score": 0.5}]
    assert len(ranked("abcd", scores, 99)) == 4
