r"""A text too long for one call of the tokenizer, tokenised piece by piece, token for token as the whole.

Knows what the kinds of normalizers, pre-tokenizers and added tokens of the tokenizers library do near a cut; not rows,
not options. A model (BPE, WordPiece, Unigram) sees one pre-token at a time, so pieces give the whole's tokens if they
have the whole's pre-tokens. A cut is made before the only space between two letters, or after the only newline between
two characters that are not white space, and only where all of this holds:

- Around it, farther than the longest added token reaches, stand only characters that every known normalizer maps one by
  one ("plain": no combining marks, no joiners), and no added token, as written or normalized.
- Every pre-tokenizer step is known to decide on either side without a look at the other, and one of them always
  separates the two. Of a regular expression each alternative must be one of those below, which have no lookbehind,
  and none of which matches across such a cut: the scan stands at the cut, whatever came before.
- The tokenizer's own normalizer and pre-tokenizer agree, on what stands around the cut.

What adds to the beginning of every text (Metaspace's first, `add_prefix_space`) sees that a piece begins with the space
of its cut and adds nothing. Special tokens come once, around all pieces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from hfray.errors import RowError
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

_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = tuple(
    (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{end}", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{end}")
    for end in ("", f"{_CONTRACTION}?")
)
_LETTER_RULES: tuple[tuple[str, ...], ...] = (
    (r" ?\p{L}+",),  # GPT-2
    (r"[\p{L}]+",),  # CLIP
    (r"[^\r\n\p{L}\p{N}]?\p{L}+",),  # Llama 3, Qwen 2
    (r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",),  # Qwen 3.5
    *_CASED,  # Mistral's Tekken, GPT-4o
)
"""Alternatives that together match at any letter: with one of these groups no letter is left between matches."""
_RULES = {
    *(rule for group in _LETTER_RULES for rule in group),
    *("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", _CONTRACTION),
    *(r"<\|startoftext\|>", r"<\|endoftext\|>"),
    *(r" ?\p{N}+", r"[\p{N}]", r"\p{N}", r"\p{N}{1,3}"),
    *(r" ?[^\s\p{L}\p{N}]+", r"[^\s\p{L}\p{N}]+", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}]+[\r\n/]*"),
    *(r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"),
}
"""Alternatives none of whose matches holds a letter and then a space, or goes on after a newline with anything but
white space or a slash."""

_CHARACTERWISE = {"NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents", "BertNormalizer", "Precompiled"}
_WHITE_SPACE_SPLITTERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
_MODELS = {"BPE", "WordPiece", "WordLevel", "Unigram"}
_BLOCK_CHARS = 4096


class _NoProofError(Exception):
    """What of the tokenizer no proof is known for."""


class Pieces:
    """Tokenises long texts in pieces. `refusal` says why this tokenizer's texts cannot be cut, None where they can."""

    refusal: str | None = None

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            self.refusal = "the tokenizer has no Rust backend"
            return
        self._backend = type(backend).from_str(backend.to_str())
        self._backend.no_truncation()
        self._backend.no_padding()
        try:
            self._cuts = _allowed_cuts(json.loads(self._backend.to_str()))
            self._first, self._last = self._special_tokens()
        except _NoProofError as error:
            self.refusal = str(error)
            return
        added = [token.content for token in self._backend.get_added_tokens_decoder().values()]
        added += [self._normalize(content) for content in added]
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
            for match in reversed(list(self._cuts.places.finditer(text[base : high + 2]))):
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
            kept = normal_left[-1:] == "\n" or self._cuts.any_white_space
        return kept and self._words(normal_left) + self._words(normal_right) == self._words(normal)

    def _normalize(self, text: str) -> str:
        normalizer = self._backend.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))

    def _words(self, text: str) -> list[str]:
        return [word for word, _ in self._backend.pre_tokenizer.pre_tokenize_str(text)]

    def _special_tokens(self) -> tuple[Array, Array]:
        bare, whole = (self._backend.encode("a", add_special_tokens=special).ids for special in (False, True))
        num_special = len(whole) - len(bare)
        places = [at for at in range(num_special + 1) if whole[at : at + len(bare)] == bare]
        if num_special != self._backend.num_special_tokens_to_add(False) or len(places) != 1:
            raise _NoProofError("its special tokens cannot be told from the text's")
        first, last = whole[: places[0]], whole[places[0] + len(bare) :]
        return np.array(first, np.int32), np.array(last, np.int32)


@dataclass(frozen=True, slots=True)
class _Cuts:
    places: re.Pattern[str]
    any_white_space: bool
    """Whether pre-tokens end at any white space, so that a newline may be normalized to another."""


def _allowed_cuts(backend: dict[str, Any]) -> _Cuts:
    """Which cuts are proved for a tokenizer, given as its JSON. Raises _NoProofError."""
    model = backend["model"]
    if model["type"] not in _MODELS or model.get("dropout"):
        dropout = " with dropout" if model.get("dropout") else ""
        raise _NoProofError(f"no proof is known for a {model['type']} model{dropout}")
    newlines = True
    for step in _steps(backend["normalizer"], "normalizers"):
        newlines &= _normalizer_keeps_newline_cuts(step)
    cut_at_space = cut_at_newline = any_white_space = False
    for step in _steps(backend["pre_tokenizer"], "pretokenizers"):
        kind = step["type"]
        if kind in _WHITE_SPACE_SPLITTERS:
            cut_at_space = cut_at_newline = any_white_space = True
        elif kind == "Metaspace" and step["split"]:
            cut_at_space = True
            # A word after a newline looks like a text's first one to the scheme `first`.
            newlines &= cut_at_newline and step["prepend_scheme"] != "first"
        elif kind == "ByteLevel" and (step["use_regex"] or cut_at_space):
            # It rewrites spaces, so what has not cut by now would not know them.
            cut_at_space, cut_at_newline = True, cut_at_newline or step["use_regex"]
            newlines &= cut_at_newline and not step["add_prefix_space"]
        elif kind == "Split" and _rules_are_known(step):
            cut_at_space = cut_at_newline = True
        elif kind != "Digits" and (kind, step.get("behavior")) != ("Punctuation", "Isolated"):
            raise _NoProofError(f"no proof is known for its pre-tokenizer ({_described(step)})")
    if not cut_at_space:
        raise _NoProofError("its pre-tokenizer does not end words at spaces")
    for step in _steps(backend["post_processor"], "processors"):
        if step["type"] not in ("ByteLevel", "TemplateProcessing", "BertProcessing", "RobertaProcessing"):
            raise _NoProofError(f"no proof is known for its post-processor ({_described(step)})")
        if step["type"] == "TemplateProcessing" and sum("Sequence" in part for part in step["single"]) != 1:
            raise _NoProofError("its post-processor does not give a text once")
    places = f"{_SPACE_CUT}|{_NEWLINE_CUT}" if newlines and cut_at_newline else _SPACE_CUT
    return _Cuts(re.compile(places), any_white_space)


def _steps(part: dict[str, Any] | None, children: str) -> list[dict[str, Any]]:
    """A part of a tokenizer and, of a sequence, its parts."""
    if part is None:
        return []
    return [leaf for child in part[children] for leaf in _steps(child, children)] if children in part else [part]


def _normalizer_keeps_newline_cuts(step: dict[str, Any]) -> bool:
    kind = step["type"]
    if kind in _CHARACTERWISE:
        return True
    if kind == "Strip" and not step["strip_left"]:
        return False
    if kind == "Replace":
        ((how, pattern),) = step["pattern"].items()
        if how == "String" and not re.search(r"\s", pattern):
            return True
        # Of one space that has no other beside it: the same, or no match.
        if (how, pattern, step["content"]) == ("Regex", r"\s+", " ") or (how, pattern) == ("Regex", " {2,}"):
            return True
    raise _NoProofError(f"no proof is known for its normalizer ({_described(step)})")


def _rules_are_known(step: dict[str, Any]) -> bool:
    ((how, pattern),) = step["pattern"].items()
    rules = set(_alternatives(pattern)) if how == "Regex" else set()
    letters = any(rules.issuperset(group) for group in _LETTER_RULES)
    return letters and rules <= _RULES and step["behavior"] in ("Isolated", "Removed")


def _alternatives(pattern: str) -> list[str]:
    """The alternatives of a regular expression, those in its groups left as they are."""
    found, depth, in_class = [""], 0, False
    for part in re.findall(r"\\.|.", pattern, re.DOTALL):
        depth += 0 if in_class else (part == "(") - (part == ")")
        in_class = part != "]" if in_class else part == "["
        if part == "|" and not depth and not in_class:
            found.append("")
        else:
            found[-1] += part
    return found


def _described(step: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in step.items() if len(str(value)) < 200}, ensure_ascii=False)[:300]
