"""Logits to probabilities, and labels best first. Knows numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hfray.types import Array


def softmax(logits: Array) -> Array:
    """Along the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def sigmoid(logits: Array) -> Array:
    """Without overflow for large negative logits."""
    return np.exp(-np.logaddexp(0.0, -logits))


def ranked(labels: Sequence[str], scores: Array, top_k: int | None = None) -> list[dict[str, Any]]:
    """`{"label", "score"}` best first; equal scores keep the order of the labels. scores: [num_labels]."""
    best = np.argsort(-scores, kind="stable")[:top_k]
    return [{"label": labels[i], "score": float(scores[i])} for i in best]
