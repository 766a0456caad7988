"""What a report says of a tokenised corpus. Knows plain numbers and texts only."""

from __future__ import annotations

from pydantic import Field

from hfray.types import Strict

BATCH_SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)
"""For which the optimizer's steps of one epoch are told."""


class SplitFacts(Strict):
    """One split of the output."""

    name: str
    parts: int
    documents: int
    """Source rows that made its examples."""
    examples: int
    tokens: int


class Corpus(Strict):
    """A tokenised corpus."""

    mode: str
    max_length: int | None = None
    source_rows: int
    """Rows of the input that were read."""
    left_out: dict[str, int] = Field(default_factory=dict)
    """Rows by the step that took them away: sample, where, deduplicate."""
    documents: int
    splits: tuple[SplitFacts, ...]
    capacity_tokens: int = 0
    """Places in all packed or padded examples; 0 where examples have the length of their text."""
    samples: tuple[str, ...] = ()
    """The first examples, decoded."""

    @property
    def examples(self) -> int:
        return sum(split.examples for split in self.splits)

    @property
    def tokens(self) -> int:
        return sum(split.tokens for split in self.splits)

    @property
    def packing_efficiency(self) -> float | None:
        """Share of the places that hold a token; None where nothing is packed or padded."""
        return self.tokens / self.capacity_tokens if self.capacity_tokens else None

    def steps(self, batch_size: int) -> int:
        """Optimizer steps of an epoch over the first split, for a global batch of so many examples."""
        return -(-self.splits[0].examples // batch_size)


class Vocabulary(Strict):
    """A tokenizer that was learned."""

    size: int
    """Its tokens, special ones included."""
    fingerprint: str
    learned_s: float
    num_texts: int
    num_skipped: int
    """Rows without a text that could be used."""
    num_chars: int
    num_words: int
    """Different ones."""
