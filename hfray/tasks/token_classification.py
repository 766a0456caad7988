"""Token classification (named entities, parts of speech): knows tags, words and their places in the text.

Grouping follows Transformers' TokenClassificationPipeline (transformers/pipelines/token_classification.py, 5.23),
except for long texts: the pipeline reconciles the entities of overlapping windows, here each token is tagged once, in
the window that shows most of its surroundings, and the tags are grouped over the whole text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from hfray.errors import DataError, RowError, SpecError
from hfray.tasks.base import ModelInfo, Processor, Summary, Task, TaskOptions
from hfray.tasks.classification import label_of
from hfray.tasks.metrics import accuracy, entity_f1
from hfray.tasks.scores import softmax
from hfray.tasks.tags import Aggregation, aggregate, groups, word_tags
from hfray.tasks.text import TextEncoder, Tokens, check_text, effective_max_length
from hfray.types import Array, Encoded, Item, Output, Result, Row, TokenLogits

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class _Carry:
    """The tokens of one row, those of all its windows together, special tokens left out."""

    text: str
    ids: Array
    """[num_tokens]"""
    offsets: Array
    """[num_tokens, 2], characters in `text`."""
    word_ids: Array | None
    """[num_tokens], indexes of the row's words; None for a plain text."""
    positions: tuple[Array, ...]
    """Per window, where its share of the tokens stands among the window's outputs."""
    aggregation: Aggregation
    ignore_labels: tuple[str, ...]


class TokenClassification(Task):
    """A text, or a list of words, to its entities.

    Each entity has `entity` (its type; the model's tag with aggregation none), `score`, `word` (its tokens decoded),
    `start` and `end` (characters of the text; of the words joined by one space where the row holds words). Rows of
    words have also `word_index` and `word_tags`: the words that begin in the entity, and the model's tag of each (that
    of its first token, after aggregation). Both are null for a plain text. An empty text has no entities.
    """

    name: ClassVar[str] = "token-classification"
    summary: ClassVar[str] = "the entities in a text, or the tags of its words"
    mode: ClassVar[Literal["forward", "generate"]] = "forward"
    auto_model: ClassVar[str] = "AutoModelForTokenClassification"
    columns: ClassVar[tuple[str, ...]] = ("text",)
    metric_names = ("precision", "recall", "f1", "accuracy")
    training_mode: ClassVar[str | None] = "words"

    class Options(TaskOptions):
        name: Literal["token-classification"] = "token-classification"
        aggregation: Aggregation = "simple"
        """How tokens become entities. none: one entry per token; simple: neighbours of one type; first, average, max:
        all tokens of a word get one tag first (its first token's, the averaged scores', the surest token's)."""
        ignore_labels: tuple[str, ...] = ("O",)
        """Labels left out of the result; entity types where tokens are grouped, tags with aggregation none."""
        stride: int = Field(default=0, ge=0)
        """Tokens that neighbouring windows of a text longer than the model share; 0 cuts such a text off instead."""

    def __init__(self, options: Any, processor: Processor, model_info: ModelInfo) -> None:
        super().__init__(options, processor, model_info)
        self._encoder_of = lru_cache(maxsize=4)(self._make_encoder)
        if not self._encoder(options).has_offsets:
            raise SpecError(
                f"task {self.name} needs a fast tokenizer (tokenizer.json), which {model_info.name} does not have"
            )
        model = processor.tokenizer.backend_tokenizer.model
        self._marks_subwords = bool(getattr(model, "continuing_subword_prefix", None))

    def encode(self, rows: Sequence[Row], options: Any = None) -> list[Encoded | RowError]:
        options = options or self.options
        encoder = self._encoder(options)
        encoded: list[Encoded | RowError] = []
        sources: dict[int, str | list[str]] = {}
        for row in rows:
            try:
                sources[len(encoded)] = _source_of(row, options)
                encoded.append(Encoded(()))
            except RowError as error:
                encoded.append(error)
        for pretokenized in (False, True):  # a tokenizer takes texts or words, not both in one batch
            chosen = {i: source for i, source in sources.items() if isinstance(source, list) == pretokenized}
            for (i, source), tokens in zip(chosen.items(), encoder.encode(list(chosen.values())), strict=True):
                if isinstance(tokens, RowError):
                    encoded[i] = tokens
                else:
                    # The tokenizer does not see the words that max_chars left out altogether.
                    truncated = tokens.truncated or len(source) < len(rows[i]["text"])
                    encoded[i] = _encoded(source, tokens, encoder, options, truncated)
        return encoded

    def decode(self, outputs: Sequence[Output], carry: _Carry) -> Result:
        if not outputs:
            return []
        logits = [output["logits"][kept] for output, kept in zip(outputs, carry.positions, strict=True)]
        probabilities = softmax(np.concatenate(logits))
        tokens = self._surface(carry)
        starts = self._units(tokens, carry)
        ends = np.append(starts[1:], len(tokens))
        unit_scores = aggregate(probabilities, starts, ends, carry.aggregation)
        tags = [self.model_info.labels[index] for index in unit_scores.argmax(axis=-1)]
        scores = unit_scores.max(axis=-1)
        grouped = carry.aggregation != "none"

        entities = []
        for first, last in groups(tags) if grouped else ((unit, unit + 1) for unit in range(len(tags))):
            entity = tags[first].split("-", 1)[-1] if grouped else tags[first]
            if entity in carry.ignore_labels:
                continue
            begin, end = int(starts[first]), int(ends[last - 1])
            found = {
                "entity": entity,
                "score": float(scores[first:last].mean()),
                "word": self._word(tokens, starts[first:last], ends[first:last], carry.aggregation),
                "start": int(carry.offsets[begin, 0]),
                "end": int(carry.offsets[end - 1, 1]),
                "word_index": None,
                "word_tags": None,
            }
            if carry.word_ids is not None:
                heads = [t for t in range(begin, end) if t == 0 or carry.word_ids[t] != carry.word_ids[t - 1]]
                units = np.searchsorted(starts, heads, side="right") - 1
                found["word_index"] = [int(carry.word_ids[t]) for t in heads]
                found["word_tags"] = [tags[unit] for unit in units]
            entities.append(found)
        return entities

    def result_type(self) -> pa.DataType:
        import pyarrow as pa

        fields = {
            "entity": pa.string(),
            "score": pa.float32(),
            "word": pa.string(),
            "start": pa.int64(),
            "end": pa.int64(),
            "word_index": pa.list_(pa.int64()),
            "word_tags": pa.list_(pa.string()),
        }
        return pa.list_(pa.struct(fields))

    def summarize(self, result: Result) -> Summary:
        if not result:
            return Summary(label="(none)")
        surest = max(result, key=lambda entity: entity["score"])
        return Summary(label=surest["entity"], score=surest["score"])

    def metrics(self, results: Sequence[Result], references: Sequence[Any]) -> dict[str, float]:
        """Entity "precision", "recall", "f1" (as seqeval counts them) and "accuracy" over words.

        A reference is the list of a row's tags, one per word, or their indexes among the model's labels; only rows of
        words can be compared. Words in no entity of the result count as "O". Tags without a scheme such as BIO (parts
        of speech) have an accuracy only. Raises DataError.
        """
        wanted = [self._reference_tags(reference, row) for row, reference in enumerate(references)]
        found = [
            word_tags(result, len(tags), row) for row, (result, tags) in enumerate(zip(results, wanted, strict=True))
        ]
        flat_found, flat_wanted = ([tag for tags in rows for tag in tags] for rows in (found, wanted))
        values = {"accuracy": accuracy(flat_found, flat_wanted)}
        if all(tag == "O" or tag[1:2] == "-" for tag in flat_wanted):
            values = entity_f1(found, wanted) | values
        return values

    def _encoder(self, options: Any) -> TextEncoder:
        return self._encoder_of(effective_max_length(options, self.model_info.max_length), options.stride)

    def _make_encoder(self, max_length: int | None, stride: int) -> TextEncoder:
        return words_encoder(self.processor.tokenizer, max_length, stride, "task.stride")

    def _reference_tags(self, reference: Any, row: int) -> list[str]:
        if isinstance(reference, str) or not isinstance(reference, Sequence):
            raise DataError(f"reference {row} is {type(reference).__name__}, not a list of tags, one per word")
        return [label_of(tag, self.model_info.labels, closed=False) for tag in reference]

    def _surface(self, carry: _Carry) -> list[str]:
        """The tokens as the vocabulary writes them, unknown ones as the text does."""
        ids = carry.ids.tolist()
        unknown = self.processor.tokenizer.unk_token_id
        tokens: list[str] = self.processor.tokenizer.convert_ids_to_tokens(ids)
        return [
            carry.text[start:end] if token_id == unknown else token
            for token, token_id, (start, end) in zip(tokens, ids, carry.offsets.tolist(), strict=True)
        ]

    def _units(self, tokens: list[str], carry: _Carry) -> Array:
        """The first token of each unit that gets one tag, ascending: of each word where words are aggregated."""
        if carry.aggregation in ("none", "simple"):
            return np.arange(len(tokens))
        begins, ends = carry.offsets[:, 0], carry.offsets[:, 1]
        if self._marks_subwords:  # "##ing" is longer than the text it stands for
            continues = np.array([len(token) for token in tokens]) != ends - begins
        else:
            text = carry.text
            continues = np.array([at > 0 and " " not in text[at - 1 : at + 1] for at in begins.tolist()])
        continues[carry.ids == self.processor.tokenizer.unk_token_id] = False
        continues[0] = False
        return np.flatnonzero(~continues)

    def _word(self, tokens: list[str], starts: Array, ends: Array, aggregation: Aggregation) -> str:
        if aggregation == "none":
            return str(tokens[starts[0]])
        join = self.processor.tokenizer.convert_tokens_to_string
        if aggregation == "simple":
            return str(join(tokens[starts[0] : ends[-1]]))
        # Words first, then the words together, as the pipeline does it; the two decodings are not one.
        return str(join([join(tokens[start:end]) for start, end in zip(starts, ends, strict=True)]))


def _source_of(row: Row, options: Any) -> str | list[str]:
    if "text" not in row:
        raise RowError("column 'text' is missing", type="MissingColumn")
    value = row["text"]
    return words_of(value, options) if isinstance(value, list | tuple) else check_text(value, "text", options)


def words_encoder(tokenizer: Any, max_length: int | None, stride: int, option: str) -> TextEncoder:
    """Encodes texts and words with offsets. Raises SpecError, with the name of the stride's own `option`."""
    if stride and max_length is not None:
        room = max_length - tokenizer.num_special_tokens_to_add()
        if stride >= room:
            raise SpecError(
                f"{option} {stride} leaves no step between windows of {room} tokens "
                f"(max_length {max_length} without special tokens); choose less than {room}"
            )
    return TextEncoder(tokenizer, max_length, stride=stride, offsets=True)


def words_of(value: Sequence[Any], options: Any) -> list[str]:
    """A row's words, each checked; fewer where `max_chars` cut them. Raises RowError: as `check_text`."""
    words = [check_text(word, f"text[{index}]", options, allow_empty=True) for index, word in enumerate(value)]
    lengths = np.cumsum([len(word) + 1 for word in words]) - 1
    fitting = int(np.searchsorted(lengths, options.max_chars, side="right"))
    if fitting < len(words) and options.over_max_chars == "error":
        raise RowError(
            f"text has words of {lengths[-1]:,} characters, over max_chars {options.max_chars:,}", type="TextTooLong"
        )
    return words[:fitting]


def _encoded(source: str | list[str], tokens: Tokens, encoder: TextEncoder, options: Any, truncated: bool) -> Encoded:
    windows = (tokens, *tokens.windows)
    positions = _shares(windows, options.stride)
    ids = np.concatenate([window.ids[kept] for window, kept in zip(windows, positions, strict=True)])
    offsets = np.concatenate([_array(window.offsets)[kept] for window, kept in zip(windows, positions, strict=True)])
    text, word_ids = source if isinstance(source, str) else " ".join(source), None
    if isinstance(source, list):
        word_ids = np.concatenate(
            [_array(window.word_ids)[kept] for window, kept in zip(windows, positions, strict=True)]
        )
        begins = np.cumsum([0] + [len(word) + 1 for word in source])
        offsets = offsets + begins[word_ids][:, None]  # a tokenizer counts within each word
    carry = _Carry(text, ids, offsets, word_ids, positions, options.aggregation, options.ignore_labels)
    if not len(ids):
        return Encoded((), carry, truncated)
    items = tuple(Item("text", encoder.model_inputs(window), TokenLogits()) for window in windows)
    return Encoded(items, carry, truncated)


def _shares(windows: Sequence[Tokens], stride: int) -> tuple[Array, ...]:
    """Per window, the positions of the tokens it decides: those farther from its cut edges than from another's.

    Windows advance by a fixed step, so the line between two neighbours is the middle of their overlap.
    """
    contents = [np.flatnonzero(_array(window.sequence_ids) >= 0) for window in windows]
    step = len(contents[0]) - stride
    begins = [step * index for index in range(len(windows))]
    ends = [begin + len(content) for begin, content in zip(begins, contents, strict=True)]
    middles = [(end + begin + 1) // 2 for end, begin in zip(ends, begins[1:], strict=False)]
    lines = pairwise([0, *middles, ends[-1]])
    return tuple(
        content[first - begin : last - begin]
        for content, begin, (first, last) in zip(contents, begins, lines, strict=True)
    )


def _array(values: Array | None) -> Array:
    if values is None:
        raise TypeError("the tokens were encoded without offsets")
    return values
