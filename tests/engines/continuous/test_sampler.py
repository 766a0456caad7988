"""The next token of each row by its own settings, whatever the rows beside it want."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import GenerationConfig

from hfray.engines.base import Token
from hfray.engines.continuous.sampler import Sampler
from hfray.engines.continuous.sequence import Sequence
from tests.engines.continuous.support import params_of

NOBODY: Any = None
SCORES = torch.tensor([0.1, 2.0, 1.5, -1.0, 0.5, 1.9])


def row(prompt: tuple[int, ...] = (3, 4), new: tuple[int, ...] = (), **settings: Any) -> Sequence:
    sequence = Sequence(params_of(**settings), [*prompt], NOBODY, 0, b"")
    for token in new:
        sequence.append(token)
    return sequence


def drawn(rows: list[Sequence], scores: Any = None, own: GenerationConfig | None = None) -> list[Token | None]:
    scores = SCORES.repeat(len(rows), 1) if scores is None else scores
    return Sampler(own or GenerationConfig(), "cpu")(scores, rows)


def ids(tokens: list[Token | None]) -> list[int]:
    return [token.id for token in tokens if token is not None]


def test_each_row_has_its_own_constraints() -> None:
    rows = [
        row(),
        row(min_new_tokens=1),  # token 1 would end the text
        row(prompt=(1, 5), repetition_penalty=2.0),
        row(prompt=(3, 5, 3), no_repeat_ngram_size=2, eos_token_ids=()),
    ]
    scores = SCORES.repeat(4, 1)
    scores[3, 5] = 9.0
    assert ids(drawn(rows, scores)) == [1, 5, 2, 1]


def test_the_models_own_vocabulary_counts() -> None:
    own = GenerationConfig(suppress_tokens=[1], forced_eos_token_id=4)
    assert ids(drawn([row(), row(new=(2,), max_new_tokens=2)], own=own)) == [5, 4]


def test_scores_are_the_models_own_and_as_many_as_a_row_asks_for() -> None:
    plain, penalised, silent = drawn([
        row(logprobs=3), row(prompt=(1, 1), repetition_penalty=4.0, logprobs=1), row()
    ])  # fmt: skip
    assert plain is not None and penalised is not None and silent is not None  # noqa: PT018
    logprobs = SCORES.log_softmax(0)
    assert plain.scores is not None
    assert plain.scores.top_ids == (1, 5, 2)
    assert plain.scores.logprob == pytest.approx(float(logprobs[1]))
    assert penalised.id == 5
    assert penalised.scores is not None
    assert penalised.scores.top_ids == (1,)
    assert penalised.scores.logprob == pytest.approx(float(logprobs[5]))
    assert silent.scores is None


def test_scores_that_are_no_numbers_give_no_token() -> None:
    scores = SCORES.repeat(3, 1)
    scores[1, 3] = float("nan")
    first, second, third = drawn([row(), row(), row(temperature=1.0)], scores)
    assert (first is None, second is None, third is None) == (False, True, False)


def test_a_seed_draws_the_same_whatever_is_beside_it() -> None:
    def text(*others: Sequence) -> list[int]:
        sampler, mine = Sampler(GenerationConfig(), "cpu"), row(temperature=1.0, seed=7)
        rows = [*others, mine]
        found = []
        for _ in range(12):
            last = sampler(SCORES.repeat(len(rows), 1), rows)[-1]
            assert last is not None
            found.append(last.id)
        return found

    assert text() == text(row(temperature=1.0, seed=3), row(), row(temperature=0.5, top_k=2))
    assert len(set(text())) > 1


def test_draws_follow_the_softmax_within_what_a_row_allows() -> None:
    count = 4_000
    rows = [row(temperature=0.7, top_k=3, seed=seed) for seed in range(count)]
    rows += [row(temperature=1.0, seed=seed) for seed in range(count)]
    found = np.array(ids(drawn(rows)))
    for some, temperature, allowed in ((found[:count], 0.7, [1, 2, 5]), (found[count:], 1.0, list(range(6)))):
        assert set(some.tolist()) == set(allowed)
        expected = (SCORES[allowed] / temperature).softmax(0).double().numpy()
        observed = np.array([(some == token).sum() for token in allowed])
        assert stats.chisquare(observed, expected / expected.sum() * count).pvalue > 1e-3
