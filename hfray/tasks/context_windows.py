"""A question before windows of its context. Knows tokenizers and how far windows advance; not spans, not answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hfray.errors import RowError, SpecError
from hfray.tasks.text import TextEncoder, Tokens

DEFAULT_MAX_LENGTH = 384
DEFAULT_STRIDE = 128


class ContextWindows:
    """Encodes questions with their contexts, of which neighbouring windows share `stride` tokens. Thread-safe."""

    def __init__(self, tokenizer: Any, max_length: int, stride: int | None, option: str) -> None:
        """max_length: most tokens of a window, question included; stride: None is 128, or half of max_length if that is
        less; option: the name of the stride's own, for errors. Raises SpecError."""
        self.max_length = max_length
        self.stride = stride or min(DEFAULT_STRIDE, max_length // 2)
        self._num_special = tokenizer.num_special_tokens_to_add(pair=True)
        room = max_length - self._num_special
        if self.stride >= room:
            raise SpecError(
                f"{option} {self.stride} leaves no step between windows of {room} tokens "
                f"(max_length {max_length} without special tokens); choose less than {room}"
            )
        self.encoder = TextEncoder(tokenizer, max_length, truncation="only_second", stride=self.stride, offsets=True)
        self._counter = TextEncoder(tokenizer, None, add_special_tokens=False)

    def encode(self, questions: Sequence[str], contexts: Sequence[str]) -> list[Tokens | RowError]:
        """The first window of each; the further ones are in `Tokens.windows`. Each pair must have passed `check`."""
        return self.encoder.encode(questions, contexts)

    def check(self, question: str, context: str) -> None:
        """Raises RowError QuestionTooLong where windows over the context could not advance; the tokenizer panics."""
        most = self.max_length - self._num_special - self.stride - 1
        if len(question.encode()) <= most:  # a token stands for a byte at least
            return
        num_tokens = self._count(question)
        if num_tokens > most and num_tokens + self._num_special + self._count(context) > self.max_length:
            raise RowError(
                f"question has {num_tokens:,} tokens; windows of {self.max_length} tokens that share {self.stride} "
                f"take at most {most}",
                type="QuestionTooLong",
            )

    def _count(self, text: str) -> int:
        tokens = self._counter.encode([text])[0]
        if isinstance(tokens, RowError):
            raise tokens
        return len(tokens.ids)
