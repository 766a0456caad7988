"""How often each word of a corpus occurs, and which characters that takes. Knows texts and pre-tokenizers; not what is
learned from the counts.

A word is what a tokenizer's normaliser and pre-tokenizer leave in one piece. The texts are read once, as a stream:
memory grows with the number of different words, not with the corpus.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hfray.errors import EngineError

MAX_CHARS_COUNTED = 2**31 - 1
"""The trainers count pairs in 32 bits; of a larger corpus, all counts are divided until it fits."""
_LINE_CHARS = 1 << 16


@dataclass(frozen=True, slots=True)
class Corpus:
    """What was counted. num_skipped: texts that are null, no valid Unicode, or too long; the other numbers leave them
    out."""

    num_texts: int
    num_skipped: int
    num_chars: int
    num_words: int
    """Different ones."""


def count_words(texts: Iterable[Any], backend: Any, *, max_chars: int, truncate: bool) -> tuple[dict[str, int], Corpus]:
    """Counts by word, in the order of the words, on all of the library's threads.

    texts: each a text or a list of texts; what they raise passes. backend: whose normaliser and pre-tokenizer make the
    words. truncate: whether a text above `max_chars` is cut; otherwise it is skipped.
    """
    from tokenizers import Tokenizer, models, trainers

    numbers = Counter[str]()

    def usable() -> Iterator[str]:
        for given in texts:
            for text in given if isinstance(given, list | tuple) else (given,):
                if truncate and isinstance(text, str):
                    text = text[:max_chars]
                if not isinstance(text, str) or len(text) > max_chars or not _is_valid(text):
                    numbers["skipped"] += 1
                    continue
                numbers["texts"] += 1
                numbers["chars"] += len(text)
                yield text

    counter = Tokenizer(models.WordLevel({}, unk_token=""))
    if backend.normalizer is not None:
        counter.normalizer = backend.normalizer
    counter.pre_tokenizer = backend.pre_tokenizer
    trainer = trainers.WordLevelTrainer(vocab_size=0, show_progress=False)
    counter.train_from_iterator(usable(), trainer)
    # Its pickled form is the only way to the counts; with a vocabulary of 0 it has done nothing else.
    counts = json.loads(trainer.__getstate__()).get("WordLevelTrainer", {}).get("words")
    if not isinstance(counts, dict):
        raise EngineError("this version of the tokenizers library does not give its counts of words; install 0.23")
    counts.pop("", None)
    ordered = {word: counts[word] for word in sorted(counts)}
    return ordered, Corpus(numbers["texts"], numbers["skipped"], numbers["chars"], len(ordered))


def _is_valid(text: str) -> bool:
    """Whether there are no lone surrogates, which UTF-8 does not have."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def countable(counts: dict[str, int]) -> dict[str, int]:
    """The same, divided so that no pair of characters occurs too often to be counted; rarer words than that go."""
    num_chars = sum(len(word) * count for word, count in counts.items())
    divisor = -(-num_chars // MAX_CHARS_COUNTED)
    return {word: count // divisor for word, count in counts.items() if count >= divisor}


def alphabet_of(counts: dict[str, int], coverage: float) -> frozenset[str]:
    """The most frequent characters, as few as cover that share of all of them."""
    chars = Counter[str]()
    for word, count in counts.items():
        for char in word:
            chars[char] += count
    wanted = math.ceil(chars.total() * coverage)
    alphabet, covered = set[str](), 0
    for char, count in sorted(chars.items(), key=lambda each: (-each[1], each[0])):
        if covered >= wanted:
            break
        alphabet.add(char)
        covered += count
    return frozenset(alphabet)


def known_parts(counts: dict[str, int], alphabet: frozenset[str], max_part_chars: int) -> dict[str, int]:
    """Words, cut where they have a character outside the alphabet, and where they are too long."""
    parts = Counter[str]()
    for word, count in counts.items():
        known = word if alphabet.issuperset(word) else "".join(char if char in alphabet else " " for char in word)
        for part in known.split(" "):
            for start in range(0, len(part), max_part_chars):
                parts[part[start : start + max_part_chars]] += count
    return {part: parts[part] for part in sorted(parts)}


def repeated(counts: dict[str, int]) -> Iterator[str]:
    """The words as often as they occur, with spaces between, which no pre-tokenizer here leaves in a word."""
    line: list[str] = []
    room = _LINE_CHARS
    for word, left in counts.items():
        while left:
            times = min(left, max(1, room // (len(word) + 1)))
            line.append((word + " ") * times)
            left -= times
            room -= times * (len(word) + 1)
            if room <= 0 or left:
                yield "".join(line)
                line, room = [], _LINE_CHARS
    if line:
        yield "".join(line)
