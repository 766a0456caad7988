"""Token ids back to text while they arrive, and stop strings. Knows tokenizers and text; not models, not tasks.

Text is decoded without special tokens and without Transformers' clean-up of spaces, whole or piece by piece. Two
things make piecewise decoding hard, and both are settled here: one character may be spread over several tokens
(byte-level BPE, byte fallback), and a token's text depends on its neighbours (the space before a word).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what decoders show for bytes that are no whole character
_MAX_CHARACTER_BYTES = 4  # UTF-8


def decode_text(tokenizer: Any, tokens: Sequence[int], keep: Mapping[int, str] = MappingProxyType({})) -> str:
    """The text of token ids, special tokens left out but for those to keep, which stand there as they are written."""
    ids = [int(token) for token in tokens]
    if keep and not keep.keys().isdisjoint(ids):
        pieces, start = [], 0
        for place, token in enumerate(ids):
            if token in keep:
                pieces += [decode_text(tokenizer, ids[start:place]), keep[token]]
                start = place + 1
        return "".join([*pieces, decode_text(tokenizer, ids[start:])])
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def special_tokens(tokenizer: Any, texts: Iterable[str]) -> dict[int, str]:
    """Those of the texts that are special tokens, by their ids: what `decode_text` would leave out."""
    special = set(tokenizer.all_special_ids)
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special |= {number for number, token in added.items() if token.special}
    wanted = set(texts)
    return {number: text for number in special if (text := str(tokenizer.convert_ids_to_tokens(number))) in wanted}


def cut_at_stop(text: str, strings: Sequence[str]) -> str:
    """The text before the earliest stop string; all of it if there is none."""
    found = [index for index in map(text.find, strings) if index >= 0]
    return text[: min(found)] if found else text


@dataclass(frozen=True, slots=True)
class StopMatcher:
    """Says after each new token whether a stop string is complete: a `types.StopMatcher`.

    Meant to be asked once per token, so that a stop string, if there, reaches into the newest one: only as many last
    tokens are decoded as a stop string can span. Two matchers are equal if their strings are.
    """

    tokenizer: Any = field(compare=False, repr=False)
    strings: tuple[str, ...]

    def __call__(self, tokens: Sequence[int]) -> bool:
        if not tokens:
            return False
        longest = max(map(len, self.strings))
        num_tail = longest + 2 * _MAX_CHARACTER_BYTES
        while True:
            tail = tokens[-num_tail:]
            whole = len(tail) == len(tokens)
            # A tail may begin inside a character, and byte fallback then spoils the whole run of bytes: the second to
            # fourth attempt begin one token later each.
            for skipped in range(1 if whole else _MAX_CHARACTER_BYTES):
                text = decode_text(self.tokenizer, tail[skipped:])
                if any(string in text for string in self.strings):
                    return True
                if _UNFINISHED not in text:
                    break
            if whole or len(text) >= longest + len(decode_text(self.tokenizer, tokens[-1:])) + _MAX_CHARACTER_BYTES:
                return False
            num_tail *= 2  # tokens without text, or with less than a character each


class StreamDecoder:
    """Turns the tokens of one sequence into text as they come. Not thread-safe.

    The pieces joined are the whole text (`cut_at_stop(decode_text(...))`); half a character and text that may be the
    beginning of a stop string are held back. One exception: where a byte-fallback tokenizer's bytes turn out to be no
    valid UTF-8, characters already sent stay, while decoding at once would have replaced those of the same run.
    """

    def __init__(
        self, tokenizer: Any, stop: Sequence[str] = (), keep: Mapping[int, str] = MappingProxyType({})
    ) -> None:
        """keep: special tokens that are part of the text, as `decode_text` has them."""
        self.stopped = False
        """Whether a stop string was found; nothing comes after it."""
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._keep = keep
        self._window: list[int] = []  # the tokens of the last piece, as context, and those not sent yet
        self._num_sent = 0
        self._sent_text = ""
        self._held = ""

    def push(self, tokens: Sequence[int]) -> str:
        """The text that is certain now and was not before; often empty."""
        pieces = []
        for token in tokens:
            if int(token) in self._keep:
                pieces += [self._next_piece(last=True), self._keep[int(token)]]
                self._window, self._num_sent, self._sent_text = [], 0, ""
                continue
            self._window.append(int(token))
            pieces.append(self._next_piece(last=False))
        return self._release("".join(pieces), last=False)

    def finish(self) -> str:
        """The rest, after the last token."""
        return self._release(self._next_piece(last=True), last=True)

    def _next_piece(self, *, last: bool) -> str:
        text = decode_text(self._tokenizer, self._window)
        if len(text) <= len(self._sent_text) or (text.endswith(_UNFINISHED) and not last):
            return ""
        new = self._window[self._num_sent :]
        alone = decode_text(self._tokenizer, new)
        spoilt = not text.startswith(self._sent_text)  # by bytes of no character: see the class
        piece = alone if spoilt else text[len(self._sent_text) :]
        self._window, self._num_sent, self._sent_text = new, len(new), alone
        return piece

    def _release(self, piece: str, *, last: bool) -> str:
        if self.stopped:
            return ""
        text = self._held + piece
        before = cut_at_stop(text, self._stop)
        if len(before) < len(text):
            self.stopped = True
            self._held = ""
            return before
        num_held = 0 if last else overlap(text, self._stop)
        self._held = text[len(text) - num_held :]
        return text[: len(text) - num_held]


def overlap(text: str, strings: Sequence[str]) -> int:
    """The length of the longest end of `text` that begins one of the strings."""
    longest = max(map(len, strings), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        end = text[len(text) - length :]
        if any(string.startswith(end) for string in strings):
            return length
    return 0
