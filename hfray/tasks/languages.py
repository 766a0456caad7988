"""How a tokenizer is told languages: codes of its own, Marian's tokens, T5's sentence. Knows codes; not models."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from typing import Any

from hfray.errors import SpecError

_LANGUAGE_TOKEN = re.compile(r"[a-z]{2,3}_[A-Za-z]{2,4}")  # en_XX (mBART), eng_Latn (NLLB)
_NAMES = {
    "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech", "da": "Danish", "de": "German",
    "el": "Greek", "en": "English", "es": "Spanish", "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French",
    "gu": "Gujarati", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian",
    "it": "Italian", "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian", "ms": "Malay",
    "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian",
    "sk": "Slovak", "sl": "Slovenian", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu", "th": "Thai",
    "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
"""ISO 639-1 to the English names that T5's prefixes use."""


def language_codes(tokenizer: Any) -> dict[str, int]:
    """The codes of a multilingual tokenizer (mBART, NLLB, M2M100, PLBART) and their token ids; empty for others."""
    if not hasattr(tokenizer, "set_src_lang_special_tokens"):
        return {}
    stated = getattr(tokenizer, "lang_code_to_id", None)
    if stated:
        return {str(code): int(token) for code, token in stated.items()}
    codes = [token for token in tokenizer.all_special_tokens if _LANGUAGE_TOKEN.fullmatch(token)]
    return {code: int(tokenizer.convert_tokens_to_ids(code)) for code in codes}


def marian_codes(tokenizer: Any) -> list[str] | None:
    """Target codes without their marks; empty for a model of one pair, None if the tokenizer is not Marian's."""
    codes = getattr(tokenizer, "supported_language_codes", None)
    return None if codes is None else [code.removeprefix(">>").removesuffix("<<") for code in codes]


def marian_prefix(tokenizer: Any, codes: Collection[str], target: str | None, option: str, owner: str) -> str:
    """What tells a Marian model with these `marian_codes` its target language. Raises SpecError."""
    if target is None:
        return ""  # one target language, or each text begins with its own code
    if not codes:
        only = getattr(tokenizer, "target_lang", None)
        if only is None or target == only:
            return ""
        raise SpecError(f"{owner} translates into {only!r} only, not into {target!r}")
    return f">>{known_code(target.removeprefix('>>').removesuffix('<<'), codes, option, owner)}<< "


def sentence_prefix(source: str, target: str) -> str:
    """What tells a T5 model two languages, given by their ISO 639-1 codes."""
    return f"translate {_NAMES[source]} to {_NAMES[target]}: "


def language(value: str, option: str) -> str:
    """ISO 639-1 code of a code or an English name; `option` is where it was said. Raises SpecError."""
    by_name = {name.lower(): code for code, name in _NAMES.items()}
    code = by_name.get(value.lower(), value.lower())
    if code in _NAMES:
        return code
    raise SpecError(f"{option} {value!r} is no language that hfray can name{_hint(value, [*_NAMES, *by_name])}")


def known_code(value: str, codes: Collection[str], option: str, owner: str) -> str:
    """The value, if it is one of the codes; `option` is where it was said. Raises SpecError."""
    if value in codes:
        return value
    hint = _hint(value, codes) or f"; it has {examples(codes)}"
    raise SpecError(f"{option} {value!r} is no language code of {owner}{hint}")


def _hint(value: str, known: Collection[str]) -> str:
    """Codes that begin alike come first: "en" means "en_XX" or "eng_Latn"."""
    folded = {each.lower(): each for each in known}
    alike = [each for key, each in sorted(folded.items()) if key.startswith(value.lower())]
    close = [folded[key] for key in difflib.get_close_matches(value.lower(), folded, n=3)]
    found = list(dict.fromkeys([*alike, *close]))[:3]
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""


def examples(codes: Collection[str]) -> str:
    """A few of the codes, for an error."""
    shown = sorted(codes)[:5]
    return ", ".join(shown) + (f" and {len(codes) - len(shown)} more" if len(codes) > len(shown) else "")
