"""chat: conversations, prompts with completions, and preference pairs, for fine-tuning a decoder-only model.

Knows which columns make which kind of example and of which tokens a loss is taken; `conversation` knows templates.
Every text is tokenised once, whole, and its tokens are told apart by their offsets, so the ids are those that the
tokenizer gives for the text: a token that holds characters of a prompt and of what follows is one to be learned.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from hfray.errors import RowError, SpecError
from hfray.tasks.features.base import IGNORED, FeatureOptions, Features
from hfray.tasks.features.causal import CALL_CHARS, must_append_eos, pad_id
from hfray.tasks.features.conversation import ChatTemplate
from hfray.tasks.features.drafts import FORMS, Draft, Drafts, form_of
from hfray.tasks.features.packing import Packer
from hfray.tasks.text import TextEncoder, Tokens
from hfray.types import Array, Examples, Ragged, Row

if TYPE_CHECKING:
    import pyarrow as pa

_PAIR = ("prompt_input_ids", "chosen_input_ids", "rejected_input_ids")


@dataclass(frozen=True, slots=True)
class _Text:
    """One text tokenised: ids int64 [num_tokens]; learned bool [num_tokens], of which a loss is taken."""

    ids: Array
    learned: Array


class Chat(Features):
    name: ClassVar[str] = "chat"
    summary: ClassVar[str] = "conversations, prompts with completions, or preference pairs, for a chat model"
    columns: ClassVar[tuple[str, ...]] = ()
    optional_columns: ClassVar[tuple[str, ...]] = ("messages", "tools", "prompt", "completion", "chosen", "rejected")

    class Options(FeatureOptions):
        name: Literal["chat"] = "chat"
        form: Literal["auto", "messages", "completion", "preference"] = "auto"
        """What the rows are: conversations (column `messages`, optionally `tools`), prompts with completions (`prompt`,
        `completion`), or preference pairs (`chosen`, `rejected`, optionally `prompt`); `auto` goes by the columns.
        Prompts, completions and pairs are texts or lists of messages."""
        loss: Literal["assistant", "last", "all"] = "assistant"
        """Of which tokens a loss is taken: what the assistant wrote (in `completion`, nothing of the prompt), its last
        turn only, or all. A preference pair has no labels."""
        packing: Literal["none", "best_fit", "concatenate"] = "none"
        """Whether examples are packed into sequences of `max_length` tokens, and how: see mode packed."""
        chat_template: str | None = None
        """A Jinja template in place of the tokenizer's own."""
        truncation: Literal["right", "error"] = "right"
        """An example over `max_length`: it loses its end (its row fails if nothing to learn is left), or its row
        fails."""

    @classmethod
    def required_columns(cls, options: Any, present: Collection[str]) -> tuple[str, ...]:
        """Those of the form. Raises SpecError: the columns fit none, or more than one."""
        return FORMS[form_of(options, present)]

    def __init__(
        self, options: Any, tokenizer: Any, max_length: int | None, present: Mapping[str, pa.DataType]
    ) -> None:
        super().__init__(options, tokenizer, max_length, present)
        self._form = form_of(options, present)
        self._packer = None
        if self.packs:
            if self._form == "preference":
                raise SpecError("mode chat: preference pairs cannot be packed; use packing: none")
            if max_length is None:
                raise SpecError(f"mode chat with packing: {options.packing} needs max_length")
            self._packer = Packer(options.packing, max_length, pad_id(tokenizer))
        lists = [column for column in FORMS[self._form] if _is_list(present.get(column))]
        template = None
        if self._form == "messages" or lists or options.chat_template is not None:
            template = ChatTemplate(tokenizer, options.chat_template)
        self._drafts = Drafts(options, self._form, template)
        may_be_plain = self._form != "messages" and len(lists) < len(FORMS[self._form])
        self._end = np.zeros(0, np.int64)
        if may_be_plain and must_append_eos(tokenizer, options):
            self._end = np.array([tokenizer.eos_token_id], np.int64)
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise SpecError("mode chat needs a fast tokenizer (tokenizer.json): others do not say where a token stands")
        kinds = [plain for plain, needed in ((True, may_be_plain), (False, template is not None)) if needed]
        self._encoders = {
            plain: TextEncoder(tokenizer, None, offsets=True, add_special_tokens=plain) for plain in kinds
        }

    @property
    def packs(self) -> bool:
        return bool(self.options.packing != "none")

    def pack(self, columns: Mapping[str, Any]) -> Mapping[str, Any]:
        """With packing, the examples of `encode`'s columns as sequences of `max_length` tokens."""
        return columns if self._packer is None else self._packer.pack(columns)

    def packed_schema(self) -> pa.Schema:
        return self.schema() if self._packer is None else self._packer.schema()

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([(name, pa.list_(pa.int32())) for name in self._names])

    @property
    def _names(self) -> tuple[str, ...]:
        return _PAIR if self._form == "preference" else ("input_ids", "labels")

    def encode(self, rows: Sequence[Row]) -> Examples:
        errors: dict[int, RowError] = {}
        drafts: dict[int, list[Draft]] = {}
        for index, row in enumerate(rows):
            try:
                drafts[index] = self._drafts.of(row)
            except RowError as error:
                errors[index] = error
        tokenised = self._tokenise([each for group in drafts.values() for each in group])
        made: list[int] = []
        truncated: list[int] = []
        examples: list[tuple[Array, ...]] = []
        for index, group in drafts.items():
            texts = [next(tokenised) for _ in group]
            try:
                columns, cut = self._example([_or_raise(text) for text in texts])
            except RowError as error:
                errors[index] = error
                continue
            made.append(index)
            examples.append(columns)
            if cut or any(each.truncated for each in group):
                truncated.append(index)
        return Examples(
            rows=np.array(made, np.int64),
            columns={name: Ragged.of([each[at] for each in examples]) for at, name in enumerate(self._names)},
            errors=errors,
            truncated=tuple(truncated),
        )

    def _tokenise(self, drafts: Sequence[Draft]) -> Iterator[_Text | RowError]:
        """One entry per draft, in order; a limited number of characters at a time."""
        together: list[Draft] = []
        num_chars = 0
        for draft in drafts:
            if num_chars + len(draft.rendered.text) > CALL_CHARS:
                yield from self._in_one_call(together)
                together, num_chars = [], 0
            together.append(draft)
            num_chars += len(draft.rendered.text)
        yield from self._in_one_call(together)

    def _in_one_call(self, drafts: Sequence[Draft]) -> Iterator[_Text | RowError]:
        tokens: dict[bool, Iterator[Tokens | RowError]] = {}
        for plain, encoder in self._encoders.items():
            tokens[plain] = iter(encoder.encode([each.rendered.text for each in drafts if each.plain is plain]))
        for draft in drafts:
            text = next(tokens[draft.plain])
            yield text if isinstance(text, RowError) else self._text(draft, text)

    def _text(self, draft: Draft, tokens: Tokens) -> _Text:
        if tokens.offsets is None or tokens.sequence_ids is None:
            raise ValueError("the encoder gives no offsets")
        starts, ends = tokens.offsets[:, 0], tokens.offsets[:, 1]
        # A white space token may have lost its own characters to `trim_offsets`: it ends where they did.
        starts = np.minimum(starts, ends - 1)
        learned = np.zeros(len(starts), bool)
        for start, end in draft.rendered.spans:
            learned |= (starts < end) & (ends > start)
        if not draft.plain:
            return _Text(tokens.ids, learned)
        # Special tokens have no characters: those after a text end what is learned, those before it begin the prompt.
        learned |= (tokens.sequence_ids < 0) & (np.cumsum(learned) > 0)
        learned |= self.options.loss == "all" and self._form == "completion"
        return _Text(np.concatenate([tokens.ids, self._end]), np.concatenate([learned, np.ones(len(self._end), bool)]))

    def _example(self, texts: Sequence[_Text]) -> tuple[tuple[Array, ...], bool]:
        """The columns of an example, and whether `max_length` cut it. Raises RowError: TooLong, NothingToLearn."""
        if self._form != "preference":
            (text,) = texts
            kept, cut = self._fit(len(text.ids))
            labels = np.where(text.learned, text.ids, IGNORED)[:kept]
            if (labels[1:] == IGNORED).all():  # nothing predicts the first token
                raise RowError(_nothing(cut=cut), type="NothingToLearn")
            return (text.ids[:kept], labels), cut
        chosen, rejected = texts
        if not (chosen.learned.any() and rejected.learned.any()):
            raise RowError(_nothing(cut=False), type="NothingToLearn")
        num_prompt = min(int(np.argmax(text.learned)) for text in texts)
        same = chosen.ids[:num_prompt] == rejected.ids[:num_prompt]
        num_prompt = num_prompt if same.all() else int(np.argmin(same))
        kept, cut = self._fit(max(len(text.ids) for text in texts))
        if kept <= num_prompt:
            raise RowError(_nothing(cut=cut), type="NothingToLearn")
        return (chosen.ids[:num_prompt], chosen.ids[num_prompt:kept], rejected.ids[num_prompt:kept]), cut

    def _fit(self, num_tokens: int) -> tuple[int, bool]:
        """How many of the tokens are kept, and whether some are not."""
        if self.max_length is None or num_tokens <= self.max_length:
            return num_tokens, False
        if self.options.truncation == "error":
            raise RowError(
                f"the example has {num_tokens:,} tokens, over max_length {self.max_length:,} (truncation: right drops "
                "its end)",
                type="TooLong",
            )
        return self.max_length, True


def _nothing(*, cut: bool) -> str:
    return "no token to learn is left" + (" of what max_length allows" if cut else "")


def _or_raise(text: _Text | RowError) -> _Text:
    if isinstance(text, RowError):
        raise text
    return text


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return kind is not None and (pa.types.is_list(kind) or pa.types.is_large_list(kind))
