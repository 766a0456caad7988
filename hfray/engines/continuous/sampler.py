"""The next token of each row, by the row's own settings and seed. Knows scores and sequences; not the model."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from hfray.engines.base import Token, TokenScores
from hfray.engines.continuous.sequence import Sequence
from hfray.engines.sampling import GumbelNoise, constraints, token_scores, warpers
from hfray.types import GenerationParams


@dataclass(slots=True)
class RowState:
    """What sampling keeps of a sequence; it survives preemption, so that no random number is drawn twice."""

    constraints: list[Any]
    noise: GumbelNoise | None


class Sampler:
    """own: the model's own generation settings, of which only those of its vocabulary count."""

    def __init__(self, own: GenerationConfig, device: Any) -> None:
        self._own = own
        self._device = device

    def __call__(self, scores: Any, sequences: Many[Sequence]) -> list[Token | None]:
        """scores: [rows, vocabulary], one row per sequence. None where they are not finite numbers.

        Where it fails, no random number is used up.
        """
        noises = [state.noise for state in map(self._state, sequences) if state.noise is not None]
        marks = [noise.mark() for noise in noises]
        try:
            return self._draw(scores, sequences)
        except BaseException:
            for noise, mark in zip(noises, marks, strict=True):
                noise.back(mark)
            raise

    def _draw(self, scores: Any, sequences: Many[Sequence]) -> list[Token | None]:
        scores = scores.float()
        told = [row for row, sequence in enumerate(sequences) if sequence.params.logprobs is not None]
        own = scores[told] if told else None  # a copy: constraints write into the scores
        for row, sequence in enumerate(sequences):
            state = self._state(sequence)
            if state.constraints:
                scores[row] = self._constrained(state, sequence, scores[row : row + 1])[0]
        best, tokens = scores.max(dim=-1)
        drawn = tokens.clone()
        for rows, params in _groups(sequences):
            warped = scores[rows]
            for warper in warpers(params):
                warped = warper(None, warped)
            for number, row in enumerate(rows):
                noise: Any = self._state(sequences[row]).noise
                drawn[row] = noise(None, warped[number : number + 1])[0].argmax()
        found: dict[int, TokenScores] = {}
        if told:
            num_top = max(sequences[row].params.logprobs or 0 for row in told)
            found = dict(zip(told, token_scores(own, drawn[told], num_top), strict=True))
        # The largest is NaN where any score is.
        return [
            Token(token, scores=_cut(found.get(row), sequences[row].params.logprobs)) if fine else None
            for row, (token, fine) in enumerate(zip(drawn.tolist(), best.isfinite().tolist(), strict=True))
        ]

    def _state(self, sequence: Sequence) -> RowState:
        if sequence.sampler is None:
            params = sequence.params
            found = constraints(self._own, params, sequence.num_prompt, self._device)
            noise = GumbelNoise([params.seed], self._device) if params.temperature > 0 else None
            sequence.sampler = RowState(found, noise)
        state: RowState = sequence.sampler
        return state

    def _constrained(self, state: RowState, sequence: Sequence, scores: Any) -> Any:
        ids = torch.tensor([sequence.tokens], device=self._device)
        for processor in state.constraints:
            scores = processor(ids, scores)
        return scores


def _cut(scores: TokenScores | None, num_top: int | None) -> TokenScores | None:
    """To what its own row asks for."""
    if scores is None or num_top is None or len(scores.top_ids) == num_top:
        return scores
    return TokenScores(scores.logprob, scores.top_ids[:num_top], scores.top_logprobs[:num_top])


def _groups(sequences: Many[Sequence]) -> list[tuple[list[int], GenerationParams]]:
    """Rows that sample, by equal settings."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row, sequence in enumerate(sequences):
        params = sequence.params
        if params.temperature > 0:
            groups.setdefault((params.temperature, params.top_k, params.top_p, params.min_p), []).append(row)
    return [(rows, sequences[rows[0]].params) for rows in groups.values()]
