"""fill-mask: the likeliest tokens at each mask of a text. Knows tokens and masks; not logits.

Every mask is answered alone, the others staying masks, as Transformers' FillMaskPipeline does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from hfray.errors import DataError, RowError, SpecError
from hfray.tasks.base import ModelInfo, Processor, Summary, Task, TaskOptions
from hfray.tasks.metrics import accuracy
from hfray.tasks.text import TextEncoder, Tokens, effective_max_length, text_of
from hfray.types import Array, Encoded, Item, MaskScores, Output, Result, Row

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class _Carry:
    ids: Array
    positions: tuple[int, ...]


class FillMask(Task):
    name: ClassVar[str] = "fill-mask"
    summary: ClassVar[str] = "likeliest words for the masks of a text"
    mode: ClassVar[Literal["forward", "generate"]] = "forward"
    auto_model: ClassVar[str] = "AutoModelForMaskedLM"
    columns: ClassVar[tuple[str, ...]] = ("text",)
    metric_names = ("accuracy",)
    training_mode: ClassVar[str | None] = "plain"

    class Options(TaskOptions):
        name: Literal["fill-mask"] = "fill-mask"
        top_k: int = Field(default=5, ge=1)
        """How many tokens to give per mask, best first."""
        targets: tuple[str, ...] | None = Field(default=None, min_length=1)
        """Rank only these words; each must be one token of the model's vocabulary."""

    def __init__(self, options: Any, processor: Processor, model_info: ModelInfo) -> None:
        super().__init__(options, processor, model_info)
        self._tokenizer = processor.tokenizer
        if self._tokenizer.mask_token is None:
            raise SpecError(
                f"fill-mask needs a model with a mask token; the tokenizer of model {model_info.name} has none"
            )
        self._targets = self._target_ids(options)
        self._encoder = lru_cache(maxsize=4)(lambda limit: TextEncoder(processor.tokenizer, limit))
        self._encoder(effective_max_length(options, model_info.max_length))

    def encode(self, rows: Sequence[Row], options: Any = None) -> list[Encoded | RowError]:
        targets = self._targets if options is None else self._target_ids(options)
        options = options or self.options
        encoder = self._encoder(effective_max_length(options, self.model_info.max_length))
        top_k = min(options.top_k, len(self._tokenizer))
        mask = self._tokenizer.mask_token
        encoded: list[Encoded | RowError] = []
        texts: list[tuple[int, str]] = []
        for index, row in enumerate(rows):
            try:
                text = text_of(row, "text", options)
                if mask not in text:
                    raise RowError(f"text has no mask; this model's mask token is {mask}", type="NoMask")
                texts.append((index, text))
                encoded.append(Encoded(()))
            except RowError as error:
                encoded.append(error)
        for (index, text), tokens in zip(texts, encoder.encode([text for _, text in texts]), strict=True):
            encoded[index] = (
                tokens if isinstance(tokens, RowError) else self._one_item(encoder, text, tokens, top_k, targets)
            )
        return encoded

    def decode(self, outputs: Sequence[Output], carry: Any) -> Result:
        return [
            [
                self._candidate(carry, position, int(token), float(score))
                for token, score in zip(ids, scores, strict=True)
            ]
            for position, ids, scores in zip(carry.positions, outputs[0]["ids"], outputs[0]["scores"], strict=True)
        ]

    def result_type(self) -> pa.DataType:
        """list<list<struct<token: int64, token_str: string, score: float, sequence: string>>>: per mask, best first."""
        import pyarrow as pa

        fields = [
            ("token", pa.int64()),
            ("token_str", pa.string()),
            ("score", pa.float32()),
            ("sequence", pa.string()),
        ]
        return pa.list_(pa.list_(pa.struct(fields)))

    def summarize(self, result: Result) -> Summary:
        best = result[0][0]
        return Summary(label=best["token_str"], score=best["score"])

    def metrics(self, results: Sequence[Result], references: Sequence[Any]) -> dict[str, float]:
        """accuracy of the best token over all masks. A reference is the word, or a list with one word per mask; it is
        right as the token's text (white space around it apart) or as the token that the word has."""
        hits: list[bool] = []
        for result, reference in zip(results, references, strict=True):
            words = [reference] if isinstance(reference, str) else reference
            if not isinstance(words, list | tuple | np.ndarray) or not all(isinstance(word, str) for word in words):
                raise DataError(f"reference {reference!r} ({type(reference).__name__}) is neither a word nor a list")
            if len(words) != len(result):
                raise DataError(f"reference {reference!r} has {len(words)} words for {len(result)} masks")
            hits += [self._is_word(mask[0], word) for mask, word in zip(result, words, strict=True)]
        return {"accuracy": accuracy(hits, [True] * len(hits))}

    def _one_item(
        self, encoder: TextEncoder, text: str, tokens: Tokens, top_k: int, targets: tuple[int, ...]
    ) -> Encoded | RowError:
        positions = tuple(np.flatnonzero(tokens.ids == self._tokenizer.mask_token_id).tolist())
        num_masks = text.count(self._tokenizer.mask_token)
        if len(positions) < num_masks:
            return RowError(
                f"only {len(positions)} of {num_masks} masks are within the first {len(tokens.ids)} tokens, where the "
                "text was cut; shorten the text before the mask",
                type="MaskCutOff",
            )
        item = Item("text", encoder.model_inputs(tokens), MaskScores(positions, top_k, targets))
        return Encoded((item,), _Carry(tokens.ids, positions), tokens.truncated)

    def _candidate(self, carry: _Carry, position: int, token: int, score: float) -> dict[str, Any]:
        ids = carry.ids.copy()
        ids[position] = token
        # With several masks the special tokens stay, or the other masks would vanish from the sequence.
        sequence = self._tokenizer.decode(
            ids[ids != self._tokenizer.pad_token_id].tolist(), skip_special_tokens=len(carry.positions) == 1
        )
        return {"token": token, "token_str": self._tokenizer.decode([token]), "score": score, "sequence": sequence}

    def _target_ids(self, options: Any) -> tuple[int, ...]:
        """The targets' token ids, each once. Raises SpecError for one that is not a single token."""
        ids: dict[int, None] = {}
        for target in options.targets or ():
            found = self._tokens_of(target)
            if len(found) != 1 or (found[0] == self._tokenizer.unk_token_id and target != self._tokenizer.unk_token):
                pieces = " ".join(map(repr, self._tokenizer.convert_ids_to_tokens(found)))
                raise SpecError(
                    f"task.targets: {target!r} is not one token of model {self.model_info.name}'s vocabulary but "
                    f"{len(found)}: {pieces or 'nothing'}; a mask holds one known token"
                )
            ids[found[0]] = None
        return tuple(ids)

    def _tokens_of(self, word: str) -> list[int]:
        known = self._tokenizer.convert_tokens_to_ids(word)
        if known is not None and (known != self._tokenizer.unk_token_id or word == self._tokenizer.unk_token):
            return [int(known)]
        return [int(token) for token in self._tokenizer(word, add_special_tokens=False)["input_ids"]]

    def _is_word(self, best: dict[str, Any], word: str) -> bool:
        return best["token_str"].strip() == word.strip() or self._tokens_of(word) == [best["token"]]
