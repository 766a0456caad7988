"""From scores to the next token: Transformers' processors in `generate`'s order, and seeded noise. Knows scores and
token ids; not models, not batches, not text.

Sampling adds Gumbel noise to the log-probabilities and takes the largest, which draws exactly from their softmax
(E. J. Gumbel 1954; Maddison, Tarlow, Minka 2014, arXiv:1411.0030). Each row has its own generator, so a row's text
depends on its seed and not on what shares its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation import (
    EncoderNoRepeatNGramLogitsProcessor,
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    LogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from hfray.engines.base import TokenScores
from hfray.types import GenerationParams


class GumbelNoise(LogitsProcessor):  # type: ignore[misc]
    """Adds standard Gumbel noise to scores [rows, vocabulary]; the largest is then a draw from their softmax.

    One generator per row, seeded with the row's seed. In float64: float32 has so few numbers near 0 that in a large
    vocabulary some token would draw exactly 0, infinite noise, every few hundred steps.
    """

    def __init__(self, seeds: Sequence[int], device: Any) -> None:
        self._generators = [torch.Generator(device=device).manual_seed(seed) for seed in seeds]

    def keep(self, rows: Sequence[int]) -> None:
        """Goes on with some of the rows."""
        self._generators = [self._generators[row] for row in rows]

    def mark(self) -> list[Any]:
        """Where the generators are, for `back`."""
        return [generator.get_state() for generator in self._generators]

    def back(self, mark: list[Any]) -> None:
        """What was drawn since then is drawn again."""
        for generator, state in zip(self._generators, mark, strict=True):
            generator.set_state(state)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        exponential = torch.empty(scores.shape, dtype=torch.float64, device=scores.device)
        for row, generator in zip(exponential, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores.double() - exponential.clamp_(min=torch.finfo(torch.float64).tiny).log_()


def token_scores(scores: Any, tokens: Any, num_top: int) -> list[TokenScores]:
    """Log-probabilities by the model's own scores, float32 [rows, vocabulary]. tokens: int64 [rows], those taken."""
    logprobs = scores.log_softmax(dim=-1)
    best = logprobs.topk(min(num_top, logprobs.shape[-1]), dim=-1)
    taken = logprobs.gather(-1, tokens[:, None])[:, 0].tolist()
    return [
        TokenScores(logprob, tuple(ids), tuple(values))
        for logprob, ids, values in zip(taken, best.indices.tolist(), best.values.tolist(), strict=True)
    ]


class Scores(LogitsProcessor):  # type: ignore[misc]
    """Leaves the scores as they are, and keeps the log-probabilities of what `generate` makes of them: first among the
    processors it sees the model's own. Which token was taken shows in the next step, and in `finish` of the last."""

    def __init__(self, num_top: int) -> None:
        self._num_top = num_top
        self._waiting: Any = None
        self._steps: list[list[TokenScores]] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if self._waiting is not None:
            self._steps.append(token_scores(self._waiting, input_ids[:, -1], self._num_top))
        self._waiting = scores.float()  # processors make new scores, and leave these alone
        return scores

    def finish(self, last_tokens: Any) -> list[list[TokenScores]]:
        """[rows][steps]; last_tokens: int64 [rows]."""
        self._steps.append(token_scores(self._waiting, last_tokens, self._num_top))
        return [list(row) for row in zip(*self._steps, strict=True)]


class WithoutPadding(LogitsProcessor):  # type: ignore[misc]
    """Shows another processor padding as a token outside the vocabulary, which it then leaves alone.

    Otherwise n-grams of padding would count, and a padding token that is also a real one would be penalised.
    """

    def __init__(self, inner: LogitsProcessor, num_padding: Any) -> None:
        self._inner = inner
        self._num_padding = num_padding[:, None]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None, :]
        return self._inner(input_ids.masked_fill(positions < self._num_padding, scores.shape[-1]), scores)


def constraints(
    own: GenerationConfig,
    params: GenerationParams,
    start: int,
    device: Any,
    *,
    num_padding: Any = None,
    encoder_ids: Any = None,
) -> list[LogitsProcessor]:
    """The processors that depend on the tokens so far, in the order of `generate`.

    own: the model's own settings, of which those of its vocabulary count. start: tokens before the first new one.
    num_padding: int64 [rows], padding on the left. encoder_ids: int64 [rows, tokens] of an encoder-decoder's input.
    """
    eos = torch.tensor(params.eos_token_ids, device=device) if params.eos_token_ids else None
    found: list[LogitsProcessor] = []
    repeats: list[LogitsProcessor] = []
    if params.repetition_penalty != 1.0:
        repeats.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if params.no_repeat_ngram_size > 0:
        repeats.append(NoRepeatNGramLogitsProcessor(params.no_repeat_ngram_size))
    found += repeats if num_padding is None else [WithoutPadding(each, num_padding) for each in repeats]
    if encoder_ids is not None and own.encoder_no_repeat_ngram_size:
        found.append(EncoderNoRepeatNGramLogitsProcessor(own.encoder_no_repeat_ngram_size, encoder_ids))
    if own.bad_words_ids is not None:
        found.append(NoBadWordsLogitsProcessor(own.bad_words_ids, eos))
    if params.min_new_tokens > 0 and eos is not None:
        found.append(MinNewTokensLengthLogitsProcessor(start, params.min_new_tokens, eos, device=device))
    if params.forced_bos_token_id is not None:
        found.append(ForcedBOSTokenLogitsProcessor(params.forced_bos_token_id))
    if own.forced_eos_token_id is not None:
        last = start + params.max_new_tokens
        found.append(ForcedEOSTokenLogitsProcessor(last, own.forced_eos_token_id, device=device))
    if own.suppress_tokens is not None:
        found.append(SuppressTokensLogitsProcessor(own.suppress_tokens, device=device))
    if own.begin_suppress_tokens is not None:
        begin = start + (params.forced_bos_token_id is not None)
        found.append(SuppressTokensAtBeginLogitsProcessor(own.begin_suppress_tokens, begin, device=device))
    return found


def warpers(params: GenerationParams) -> list[LogitsProcessor]:
    """The processors that look at one step's scores alone; empty for greedy search."""
    if params.temperature == 0:
        return []
    found: list[LogitsProcessor] = []
    if params.temperature != 1.0:
        found.append(TemperatureLogitsWarper(params.temperature))
    if params.top_k > 0:
        found.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1.0:
        found.append(TopPLogitsWarper(params.top_p))
    if params.min_p > 0:
        found.append(MinPLogitsWarper(params.min_p))
    return found
