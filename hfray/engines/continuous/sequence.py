"""One text being generated: its tokens, its blocks, how far it is computed. Knows token ids; not tensors of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from hfray.engines.base import Finish, Token, TokenScores, score_arrays
from hfray.errors import EngineError, ItemError
from hfray.types import GenerationParams, Item, Output


class Receiver(Protocol):
    """Who asked for a sequence. Called on the engine's thread."""

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits any more."""
        ...

    def token(self, token: Token) -> None:
        """A new token, as soon as it is known."""
        ...

    def done(self, output: Output | ItemError) -> None:
        """The end; nothing comes after it."""
        ...

    def fail(self, error: EngineError) -> None:
        """The end of the engine."""
        ...


@dataclass(eq=False, slots=True)
class Sequence:
    """A prompt and its continuation, from submission to the end.

    `num_cached` of its `tokens` have their keys and values in `blocks`; the last token never has before it is fed to
    the model. Preempted, it loses the blocks but keeps its tokens, and computes them again as if they were a prompt.
    """

    params: GenerationParams
    tokens: list[int]
    receiver: Receiver
    arrival: int
    salt: bytes
    """Sequences share blocks only under equal salts."""
    adapter: str | None = None
    new: list[int] = field(default_factory=list)
    scores: list[TokenScores] = field(default_factory=list)
    """Of the new tokens, where they are asked for."""
    blocks: list[int] = field(default_factory=list)
    num_cached: int = 0
    suspect: bool = False
    """It was in a step that failed: it is tried alone."""
    long_from: int | None = None
    """With more tokens the model turns all positions by other angles."""
    sampler: Any = None
    """The runner's state of its randomness, which survives preemption."""
    _digests: list[bytes] = field(default_factory=list)

    @classmethod
    def of(cls, item: Item, receiver: Receiver, arrival: int, long_from: int | None = None) -> Sequence:
        if item.generation is None:
            raise ValueError(f"an item of kind {item.kind} needs generation parameters")
        salt = repr((item.cache_salt, item.adapter)).encode()
        tokens = np.asarray(item.inputs["input_ids"]).tolist()
        return cls(item.generation, tokens, receiver, arrival, salt, item.adapter, long_from=long_from)

    @property
    def num_prompt(self) -> int:
        return len(self.tokens) - len(self.new)

    @property
    def num_left(self) -> int:
        """Tokens to feed before the next one can be drawn; 1 while decoding."""
        return len(self.tokens) - self.num_cached

    @property
    def is_long(self) -> bool:
        return self.long_from is not None and len(self.tokens) > self.long_from

    @property
    def has_become_long(self) -> bool:
        """By its last token: what is cached of it is of the other angles."""
        return self.is_long and len(self.tokens) - 1 == self.long_from and bool(self.new)

    def digests(self, count: int, block_tokens: int) -> Tokens[bytes]:
        """For each of the first `count` full blocks, a digest of the salt and all tokens up to the block's end."""
        while len(self._digests) < count:
            start = len(self._digests) * block_tokens
            salt = self.salt + b"long" * self.is_long
            before = self._digests[-1] if self._digests else hashlib.blake2b(salt, digest_size=16).digest()
            block = np.array(self.tokens[start : start + block_tokens], dtype=np.int64)
            self._digests.append(hashlib.blake2b(before + block.tobytes(), digest_size=16).digest())
        return self._digests[:count]

    def append(self, token: int, scores: TokenScores | None = None) -> Finish | None:
        """Takes a new token; says why the text ends with it ("stop" or "length"), if it does.

        Raises what the stop matcher raises.
        """
        self.tokens.append(token)
        self.new.append(token)
        if self.has_become_long:
            self._digests.clear()
        if scores is not None:
            self.scores.append(scores)
        stop = self.params.stop
        if token in self.params.eos_token_ids or (stop is not None and stop(self.new)):
            return "stop"
        return "length" if len(self.new) >= self.params.max_new_tokens else None

    def output(self, finish: Finish) -> Output:
        output: Output = {"tokens": np.array(self.new, dtype=np.int64), "finish": finish}
        if self.params.logprobs is not None:
            output |= score_arrays(self.scores, self.params.logprobs)
        return output
