r"""A text too long for one call of the tokenizer, tokenised piece by piece, token for token as the whole.

Knows what stands around a cut; not rows, not options. A cut is made before the only space between two letters, or after
the only newline between two characters that are not white space, and only where all of this holds:

- Around it, farther than the longest added token reaches, stand only characters that every known normalizer maps one by
  one ("plain": no combining marks, no joiners), and no added token, as written or normalized.
- The tokenizer is proved to decide on either side without a look at the other, and to separate the two (`tasks.cuts`).
- The tokenizer's own normalizer and pre-tokenizer agree, on what stands around the cut.

What adds to the beginning of every text (Metaspace's first, `add_prefix_space`) sees that a piece begins with the space
of its cut and adds nothing. Special tokens come once, around all pieces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from hfray.errors import RowError
from hfray.tasks.cuts import NoProofError, added_tokens, normalized, proof_of, special_tokens
from hfray.tasks.lexicon import Lexicon, lexicon_of
from hfray.types import Array

_LETTERS = (
    "A-Za-zÀ-ÖØ-öø-ÿΑ-ΡΣ-Ωα-ωА-яЁё"
    "\u05d0-\u05ea\u0621-\u063a\u0641-\u064a\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"
)
_SOLID = _LETTERS + "!-@\\[-`{-~\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f"
_PLAIN = re.compile(rf"[ \t\n{_SOLID}]*")
_SPACE_CUT = rf"(?<=[{_LETTERS}])(?= [{_LETTERS}])"
# A slash may belong to the line before: GPT-4o's rule for punctuation ends in [\r\n/]*.
_NEWLINE_CUT = rf"(?<=[{_SOLID}]\n)(?=(?!/)[{_SOLID}])"

_BLOCK_CHARS = 4096


class Pieces:
    """Tokenises long texts in pieces. `refusal` says why this tokenizer's texts cannot be cut, None where they can."""

    refusal: str | None = None

    def __init__(self, tokenizer: Any, lexicon: Lexicon | None = None) -> None:
        """lexicon: the words of this tokenizer, where somebody has them already."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            self.refusal = "the tokenizer has no Rust backend"
            return
        self._backend = type(backend).from_str(backend.to_str())
        self._backend.no_truncation()
        self._backend.no_padding()
        try:
            proof = proof_of(self._backend)
            self._first, self._last = special_tokens(self._backend)
        except NoProofError as error:
            self.refusal = str(error)
            return
        self._lexicon = lexicon or lexicon_of(self._backend, proof)
        self._places = re.compile(f"{_SPACE_CUT}|{_NEWLINE_CUT}" if proof.newlines else _SPACE_CUT)
        self._any_white_space = proof.any_white_space
        added = added_tokens(self._backend)
        self._added = re.compile("|".join(re.escape(content) for content in {*added} - {""}) or "(?!)")
        self._reach = 2 + max(map(len, added), default=0)

    def encode(self, text: str, max_chars: int) -> Array:
        """The ids of a whole text, int32 [num_tokens], special tokens included; no piece is over `max_chars`.

        For texts over `max_chars`: another needs no pieces, and with a `refusal` there are none to make.
        Raises RowError: TextTooLong where the text cannot be cut that small, TokenizerFailure.
        """
        bounds = [0, *self.cuts(text, max_chars), len(text)]
        ids = [self._first]
        for start, end in pairwise(bounds):
            known = None if self._lexicon is None else self._lexicon.ids(text[start:end])
            if known is not None:
                ids.append(np.frombuffer(known, np.int32))
                continue
            try:
                (encoding,) = self._backend.encode_batch_fast([text[start:end]], add_special_tokens=False)
            except (KeyboardInterrupt, SystemExit, MemoryError):
                raise
            except BaseException as error:  # a Rust panic is not an Exception
                raise RowError(f"the tokenizer failed: {str(error)[:300]}", type="TokenizerFailure") from None
            ids.append(np.array(encoding.ids, np.int32))
        return np.concatenate([*ids, self._last])

    def cuts(self, text: str, max_chars: int) -> list[int]:
        """Where to cut, ascending: each piece is as long as `max_chars` lets it be. Raises RowError: TextTooLong."""
        cuts: list[int] = []
        start = 0
        while len(text) - start > max_chars:
            reason = self.refusal
            cut = None if reason else next(self._cuts_before(text, start, start + max_chars), None)
            if cut is None:
                reason = reason or f"it has no place to cut it safely in characters {start:,} to {start + max_chars:,}"
                raise RowError(
                    f"text has {len(text):,} characters, over max_chars {max_chars:,}, and cannot be tokenised in "
                    f"pieces: {reason}",
                    type="TextTooLong",
                )
            cuts.append(cut)
            start = cut
        return cuts

    def _cuts_before(self, text: str, start: int, end: int) -> Iterator[int]:
        """Safe cuts in (start, end], last first."""
        for high in range(end, start, -_BLOCK_CHARS):
            low = max(start, high - _BLOCK_CHARS)
            base = max(0, low - 2)  # what a cut looks back at
            for match in reversed(list(self._places.finditer(text[base : high + 2]))):
                cut = base + match.start()
                if low < cut <= high and self._is_safe(text, cut):
                    yield cut

    def _is_safe(self, text: str, cut: int) -> bool:
        left, right = text[max(0, cut - self._reach) : cut], text[cut : cut + self._reach]
        both = left + right
        if not _PLAIN.fullmatch(both) or self._added.search(both):
            return False
        normal_left, normal_right, normal = map(self._normalize, (left, right, both))
        if normal_left + normal_right != normal or self._added.search(normal):
            return False
        if right[0] == " ":
            kept = normal_left[-1:].isalpha() and normal_right[:1] == " " and normal_right[1:2].isalpha()
        else:
            kept = normal_left[-1:] == "\n" or self._any_white_space
        return kept and self._words(normal_left) + self._words(normal_right) == self._words(normal)

    def _normalize(self, text: str) -> str:
        return normalized(self._backend, text)

    def _words(self, text: str) -> list[str]:
        return [word for word, _ in self._backend.pre_tokenizer.pre_tokenize_str(text)]
