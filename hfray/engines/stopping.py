"""When `generate` ends a batch. Knows tokens; not models, not text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers.generation import StoppingCriteria

from hfray.types import GenerationParams

LEAVE_AT = 0.25
"""Share of the rows that have ended when the others go on without them."""


class Steps(StoppingCriteria):  # type: ignore[misc]
    """Ends nothing; tells of each step."""

    def __init__(self, on_step: Callable[[], None]) -> None:
        self._on_step = on_step

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        self._on_step()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


class Stopping(StoppingCriteria):  # type: ignore[misc]
    """Ends a row when a stop string is complete, and remembers how many new tokens it had then; ends all rows when so
    many have ended that it is cheaper to go on without them.

    Beam search asks about candidates, several per item in order; nothing is remembered of them.
    """

    def __init__(self, params: Sequence[GenerationParams], start: int, *, num_before: int, leave: bool) -> None:
        """start: tokens before the first new one. num_before: new ones that each row has already. leave: whether the
        rest may go on without those that have ended."""
        self.lengths: dict[int, int] = {}
        """Of the rows that a stop string has ended."""
        self._num_before = num_before
        self._matchers = [each.stop for each in params]
        self._start = start
        self._beams = params[0].num_beams > 1
        self._eos: Any = params[0].eos_token_ids  # a tensor from the first step on
        self._leave = leave
        self._ended: Any = False

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        done = torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
        if any(self._matchers):
            done |= self._stopped(input_ids)
        if self._leave:
            if not isinstance(self._eos, torch.Tensor):
                self._eos = torch.tensor(self._eos, dtype=torch.int64, device=input_ids.device)
            self._ended = self._ended | done | torch.isin(input_ids[:, -1], self._eos)
            if self._ended.sum() >= LEAVE_AT * len(done):
                return torch.ones_like(done)
        return done

    def _stopped(self, input_ids: Any) -> Any:
        per_item = input_ids.shape[0] // len(self._matchers)
        done = [row in self.lengths for row in range(input_ids.shape[0])]
        tokens = input_ids[:, self._start :].tolist()
        for row, new_tokens in enumerate(tokens):
            matcher = self._matchers[row // per_item]
            if not done[row] and matcher is not None and matcher(new_tokens):
                done[row] = True
                if not self._beams:
                    self.lengths[row] = len(new_tokens) - self._num_before
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)
