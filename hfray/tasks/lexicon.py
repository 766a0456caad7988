"""Texts to ids word by word, from memory: the tokenizer is asked once for each word, not each time it stands in a text.

Knows what is proved of a tokenizer and what stands around a cut; not rows, not special tokens, not limits. A text is
cut before the spaces between two "solid" characters: letters, numbers and signs, but no mark, nothing that joins, and
no script that normalizers take apart. The whole's ids are those of its words where all of this holds:

- The tokenizer is proved to end pre-tokens at such a space, whatever else the text holds (`tasks.cuts`). Normalizers
  work on characters, or on one together with its marks and joiners, which a solid one before a space does not have.
- The tokenizer's own normalizer leaves a word the same with others around it, and solid where it was cut.
- No word holds an added token, as written or normalized, and none of these holds a space after anything else.

Words that may come again are remembered; other texts, and other tokenizers, are left to the tokenizer.
"""

from __future__ import annotations

import re
from array import array
from typing import Any

from hfray.tasks.cuts import NoProofError, Proof, added_tokens, normalized, proof_of

MAX_WORDS = 2**18  # some 50 MB
MAX_WORD_CHARS = 64  # a longer one will hardly come again
MAX_STRANGE_WORDS = 2**15  # met in vain, until texts that are full of them are left alone

_ASCII = "!-~"
_SOLID = (
    f"{_ASCII}\u00a1-\u00a7\u00a9-\u00ac\u00ae\u00b0-\u00b3\u00b5-\u00b7\u00b9-\u017f\u2010-\u2027"
    "\u0391-\u03a1\u03a3-\u03a9\u03b1-\u03c9\u0400-\u0481\u05d0-\u05ea\u0621-\u063a\u0641-\u064a"
)
_CUT = re.compile(rf"(?<=[{_SOLID}])(?= +[{_SOLID}])")
_STARTS = re.compile(rf" +[{_SOLID}]").match
_ENDS = re.compile(rf"[{_SOLID}]\Z").search
_IS_SOLID = re.compile(rf"[{_SOLID}]+").fullmatch
_IS_PLAIN = re.compile(rf" ?[{_ASCII}]+").fullmatch


class Lexicon:
    """The words of one tokenizer. Thread-safe."""

    def __init__(self, backend: Any, proof: Proof | None = None) -> None:
        """backend: of the tokenizers library, without truncation, and no longer changed; proof: what is proved of it,
        where somebody has asked already. Raises NoProofError."""
        proof = proof or proof_of(backend)
        if not proof.words:
            raise NoProofError("its pre-tokenizer leaves some signs or numbers together with spaces")
        added = {*added_tokens(backend)} - {""}
        if any(re.search(r"\S ", token) for token in added):
            raise NoProofError("an added token holds a space")
        self._added = re.compile("|".join(map(re.escape, added)) or "(?!)").search
        self._backend = backend
        self._plain_stand = (
            proof.by_character
            and all(_IS_SOLID(normalized(backend, chr(code))) for code in range(ord("!"), ord("~") + 1))
            and (
                backend.normalizer is None
                or not any(token.normalized for token in backend.get_added_tokens_decoder().values())
            )
        )
        self._known: dict[str, bytes] = {}
        self._num_strange = 0

    def ids(self, text: str) -> bytes | None:
        """The ids of a whole text, int32, without special tokens; None: ask the tokenizer."""
        if "\0" in text:
            return None
        # A word begins with its space, or two; where more stand between words, `_learnt` cuts.
        words = text.replace(" ", "\0 ").replace("\0 \0 ", "\0  ").split("\0")
        try:
            return b"".join(map(self._known.__getitem__, words))
        except KeyError:
            return self._learnt(text)

    def _learnt(self, text: str) -> bytes | None:
        words = _CUT.split(text)
        if len(text) > MAX_WORD_CHARS * len(words):
            return None
        found: dict[str, Any] = {word: self._known.get(word) for word in words}
        new = [word for word, ids in found.items() if ids is None]
        if 3 * len(new) < len(words):
            self._num_strange = max(0, self._num_strange - len(words))
        elif self._num_strange > MAX_STRANGE_WORDS:
            return None
        else:
            self._num_strange += len(new)
        try:
            if not all(map(self._stands_alone, new)):
                return None
            encodings = self._backend.encode_batch_fast(new, add_special_tokens=False)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException:  # a Rust panic is not an Exception; the whole text gets the blame
            return None
        if len(self._known) > MAX_WORDS:
            self._known.clear()
        for word, encoding in zip(new, encodings, strict=True):
            found[word] = ids = array("i", encoding.ids).tobytes()
            # Only what can stand anywhere: `ids` cuts before every space, and asks nothing of the words.
            if len(word) <= MAX_WORD_CHARS and _ENDS(word) and (_STARTS(word) or word[0] != " "):
                self._known[word] = ids
        return b"".join(map(found.__getitem__, words))

    def _stands_alone(self, word: str) -> bool:
        """Whether a word has the same tokens alone as with others around it."""
        if self._added(word):
            return False
        if self._plain_stand and _IS_PLAIN(word):
            return True
        alone = normalized(self._backend, word)
        before, after = "x" if _STARTS(word) else "", " x" if _ENDS(word) else ""
        return (
            not (before and not _STARTS(alone))
            and not (after and not _ENDS(alone))
            and normalized(self._backend, before + word + after) == before + alone + after
            and not self._added(alone)
        )


def lexicon_of(backend: Any, proof: Proof | None = None) -> Lexicon | None:
    """The words of a tokenizer; None where it is not proved to end words at spaces. backend, proof: as for
    Lexicon."""
    try:
        return Lexicon(backend, proof)
    except NoProofError:
        return None
