"""Positions of models that turn them by other angles once a text is long (LongRoPE, Ding et al. 2024,
arXiv:2402.13753). Knows rotary modules; not sequences.

Transformers chooses the angles by the largest position of a batch, so that a text would depend on what shares its
step. Here each row is turned as its own text asks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def long_from(model: Any) -> int | None:
    """Texts of more tokens are long; None for models that know no such thing."""
    rotation: Any = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    if rotation.get("rope_type") != "longrope":
        return None
    limit = rotation.get("original_max_position_embeddings")
    return None if limit is None or not _modules(model) else int(limit)


class Rotations:
    """Takes the place of the rotary modules' forward until `close`."""

    def __init__(self, model: Any) -> None:
        self.long_rows: Any = None
        """bool [tokens] of the step under way; None: no row's text is long."""
        self._limit = long_from(model)
        self._modules = [] if self._limit is None else _modules(model)
        for module in self._modules:
            module.forward = self._by_rows(module.forward)

    def close(self) -> None:
        for module in self._modules:
            del module.forward
        self._modules = []

    def _by_rows(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def rotate(x: Any, position_ids: Any) -> Any:
            long = self.long_rows
            if long is None:
                return forward(x, position_ids)
            # With this position beside them rows of a long text count as long, whatever their own.
            mark = position_ids.new_tensor([self._limit])
            turned = [each[:, :-1] for each in forward(x, torch.cat([position_ids[0, long], mark])[None])]
            if bool(long.all()):
                return tuple(turned)
            found = []
            for some, rest in zip(turned, forward(x, position_ids[:, ~long]), strict=True):
                both = some.new_empty((1, len(long), some.shape[-1]))
                both[:, long], both[:, ~long] = some, rest
                found.append(both)
            return tuple(found)

        return rotate


def _modules(model: Any) -> list[Any]:
    return [each for each in model.modules() if getattr(each, "rope_type", None) == "longrope"]
