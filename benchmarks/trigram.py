"""A trigram language model, for a language model to beat: interpolated Kneser-Ney with one discount (Chen and Goodman,
1999, "An empirical study of smoothing techniques for language modeling", eq. 25)."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

DISCOUNT = 0.75
_BEGIN = -1


def loss(train: Iterable[Sequence[int]], test: Iterable[Sequence[int]], vocabulary: int) -> float:
    """Nats per token of `test`, the first of each document apart, which a language model is not asked for either.
    Documents are token ids."""
    trigrams, bigrams, contexts = Counter[tuple[int, int, int]](), Counter[tuple[int, int]](), Counter[int]()
    for document in train:
        for one, two, three in _trigrams(document):
            trigrams[one, two, three] += 1
    after: defaultdict[tuple[int, int], int] = defaultdict(int)  # kinds of tokens after two
    seen: Counter[tuple[int, int]] = Counter()
    for (one, two, three), count in trigrams.items():
        seen[one, two] += count
        after[one, two] += 1
        bigrams[two, three] += 1  # kinds of contexts, not occurrences
        contexts[two] += 1
    kinds_after: Counter[int] = Counter(two for two, _ in bigrams)
    unigrams: Counter[int] = Counter(three for _, three in bigrams)
    total = len(bigrams)

    def unigram(token: int) -> float:
        return max(unigrams[token] - DISCOUNT, 0) / total + DISCOUNT * len(unigrams) / total / vocabulary

    def bigram(two: int, three: int) -> float:
        if not contexts[two]:
            return unigram(three)
        rest = DISCOUNT * kinds_after[two] / contexts[two] * unigram(three)
        return max(bigrams[two, three] - DISCOUNT, 0) / contexts[two] + rest

    def trigram(one: int, two: int, three: int) -> float:
        if not seen[one, two]:
            return bigram(two, three)
        rest = DISCOUNT * after[one, two] / seen[one, two] * bigram(two, three)
        return max(trigrams[one, two, three] - DISCOUNT, 0) / seen[one, two] + rest

    sums, count = 0.0, 0
    for document in test:
        for one, two, three in list(_trigrams(document))[1:]:
            sums -= math.log(trigram(one, two, three))
            count += 1
    return sums / count


def _trigrams(document: Sequence[int]) -> Iterable[tuple[int, int, int]]:
    padded = [_BEGIN, _BEGIN, *document]
    return zip(padded, padded[1:], padded[2:], strict=False)
