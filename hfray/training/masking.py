"""Which tokens of an example a masked language model has to guess, and what it sees in their place. Knows token ids and
numpy; not batches, not torch.

A token is chosen with a probability; of the chosen ones 80 % become the mask token, 10 % any token, 10 % stay (Devlin
et al. 2018, arXiv:1810.04805, section 3.1). At least one token of an example is chosen, as in BERT's own data, so that
no batch is without a loss. The choice depends on the seed, the epoch and the example alone: not on the batch, not on
the number of workers, not on a version of numpy.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from hfray.data.permutation import stable_hash
from hfray.tasks.features.base import IGNORED
from hfray.types import Array

_MASKED, _RANDOM = 0.8, 0.9
"""Below the first a chosen token is masked, below the second it is another one, above it stays."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, slots=True)
class Masking:
    """How examples are masked. special_ids: tokens that are never chosen; vocab_size: how many may stand in."""

    mask_token_id: int
    vocab_size: int
    special_ids: Collection[int] = ()
    probability: float = 0.15
    seed: int = 0
    _special: Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 < self.probability < 1:
            raise ValueError(f"probability {self.probability} is not between 0 and 1")
        object.__setattr__(self, "_special", np.array(sorted(self.special_ids), np.int64))

    def apply(self, input_ids: Array, epoch: int, number: int) -> tuple[Array, Array]:
        """What the model sees, and the labels, int64 [num_tokens]: -100 for the tokens that were not chosen. An example
        of special tokens only has no labels."""
        ids = np.asarray(input_ids, np.int64)
        labels = np.full(len(ids), IGNORED, np.int64)
        places = np.flatnonzero(~np.isin(ids, self._special))
        if not len(places):
            return ids, labels
        chance, fate, other = self._uniform(len(ids), epoch, number)[:, places]
        chosen = chance < self.probability
        chosen[np.argmin(chance)] = True
        places, fate, other = places[chosen], fate[chosen], other[chosen]
        labels[places] = ids[places]
        seen = ids.copy()
        seen[places[fate < _MASKED]] = self.mask_token_id
        swapped = (fate >= _MASKED) & (fate < _RANDOM)
        seen[places[swapped]] = (other[swapped] * self.vocab_size).astype(np.int64)
        return seen, labels

    def _uniform(self, num_tokens: int, epoch: int, number: int) -> Array:
        """float64 [3, num_tokens] in [0, 1): splitmix64 (Steele et al., 2014) started at a hash of the sample."""
        start = stable_hash(f"mask/{self.seed}/{epoch}/{number}".encode()) & (2**64 - 1)
        mixed = np.arange(1, 3 * num_tokens + 1, dtype=np.uint64) * _GOLDEN + np.uint64(start)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
        mixed ^= mixed >> np.uint64(31)
        return ((mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(3, num_tokens)
