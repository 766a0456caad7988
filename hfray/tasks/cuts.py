"""Where a text may be cut so that its pieces have the whole's tokens: what is proved of the kinds of normalizers,
pre-tokenizers and models of the tokenizers library. Knows a tokenizer's JSON; not texts (`features.pieces` cuts long
ones, `lexicon` all of them).

A model (BPE, WordPiece, Unigram) sees one pre-token at a time, so pieces give the whole's tokens if they have the
whole's pre-tokens. Every pre-tokenizer step has to be known to decide on either side of a cut without a look at the
other, and one of them has to separate the two. Of a regular expression each alternative must be one of those below,
which have no lookbehind, and none of which matches across a cut: the scan stands at the cut, whatever came before.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from hfray.types import Array

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
_NUMBER_RULES = {r" ?\p{N}+", r"[\p{N}]", r"\p{N}", r"\p{N}{1,3}"}
_SIGN_RULES = {
    *(r" ?[^\s\p{L}\p{N}]+", r"[^\s\p{L}\p{N}]+", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}]+[\r\n/]*"),
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
}
_RULES = {
    *(rule for group in _LETTER_RULES for rule in group),
    *("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", _CONTRACTION),
    *(r"<\|startoftext\|>", r"<\|endoftext\|>"),
    *_NUMBER_RULES,
    *_SIGN_RULES,
    *(r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"),
}
"""Alternatives none of whose matches holds a space after anything but white space, or goes on after a newline with
anything but white space or a slash."""

_CHARACTERWISE = {"NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents", "BertNormalizer", "Precompiled"}
_WHITE_SPACE_SPLITTERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
_MODELS = {"BPE", "WordPiece", "WordLevel", "Unigram"}


class NoProofError(Exception):
    """What of the tokenizer no proof is known for."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Which cuts are proved beside the one that all have: before the only space between two letters."""

    newlines: bool
    """After a newline, between two characters that are not white space."""
    any_white_space: bool
    """Pre-tokens end at any white space, so that a newline may be normalized to another."""
    words: bool
    """Before spaces between any two characters that are letters, numbers or signs, and no marks."""
    by_character: bool
    """The normalizer looks at one character at a time, white space and marks apart."""


def proof_of(backend: Any) -> Proof:
    """Which cuts are proved for a tokenizer of the library (`backend_tokenizer`). Raises NoProofError."""
    parts = json.loads(backend.to_str())
    model = parts["model"]
    if model["type"] not in _MODELS or model.get("dropout"):
        dropout = " with dropout" if model.get("dropout") else ""
        raise NoProofError(f"no proof is known for a {model['type']} model{dropout}")
    newlines = words = by_character = True
    for step in _steps(parts["normalizer"], "normalizers"):
        by_character &= step["type"] != "Replace" or "String" not in step["pattern"]
        newlines &= _normalizer_keeps_newline_cuts(step)
    cut_at_space = cut_at_newline = any_white_space = False
    for step in _steps(parts["pre_tokenizer"], "pretokenizers"):
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
            words &= _rules_leave_nothing(step)
        elif kind != "Digits" and (kind, step.get("behavior")) != ("Punctuation", "Isolated"):
            raise NoProofError(f"no proof is known for its pre-tokenizer ({_described(step)})")
    if not cut_at_space:
        raise NoProofError("its pre-tokenizer does not end words at spaces")
    for step in _steps(parts["post_processor"], "processors"):
        if step["type"] not in ("ByteLevel", "TemplateProcessing", "BertProcessing", "RobertaProcessing"):
            raise NoProofError(f"no proof is known for its post-processor ({_described(step)})")
        if step["type"] == "TemplateProcessing" and sum("Sequence" in part for part in step["single"]) != 1:
            raise NoProofError("its post-processor does not give a text once")
    return Proof(newlines and cut_at_newline, any_white_space, words, by_character)


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
    raise NoProofError(f"no proof is known for its normalizer ({_described(step)})")


def _rules_are_known(step: dict[str, Any]) -> bool:
    rules = _rules_of(step)
    letters = any(rules.issuperset(group) for group in _LETTER_RULES)
    return letters and rules <= _RULES and step["behavior"] in ("Isolated", "Removed")


def _rules_leave_nothing(step: dict[str, Any]) -> bool:
    """Whether known rules match at any number and at any sign too, as they do at any letter."""
    rules = _rules_of(step)
    return bool(rules & _NUMBER_RULES and rules & _SIGN_RULES)


def _rules_of(step: dict[str, Any]) -> set[str]:
    ((how, pattern),) = step["pattern"].items()
    return set(_alternatives(pattern)) if how == "Regex" else set()


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


def special_tokens(backend: Any) -> tuple[Array, Array]:
    """What the post-processor puts before and after a text, int32 each. Raises NoProofError.

    backend: without padding.
    """
    bare, whole = (backend.encode("a", add_special_tokens=special).ids for special in (False, True))
    num_special = len(whole) - len(bare)
    places = [at for at in range(num_special + 1) if whole[at : at + len(bare)] == bare]
    if num_special != backend.num_special_tokens_to_add(False) or len(places) != 1:
        raise NoProofError("its special tokens cannot be told from the text's")
    first, last = whole[: places[0]], whole[places[0] + len(bare) :]
    return np.array(first, np.int32), np.array(last, np.int32)


def added_tokens(backend: Any) -> list[str]:
    """The tokens that are looked for before a text is cut into words, as written and as normalized."""
    added = [token.content for token in backend.get_added_tokens_decoder().values()]
    return [*added, *(normalized(backend, content) for content in added)]


def normalized(backend: Any, text: str) -> str:
    """What the normalizer makes of a text."""
    normalizer = backend.normalizer
    return text if normalizer is None else str(normalizer.normalize_str(text))
