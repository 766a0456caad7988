"""The lines of an OpenAI batch file as rows of a task: its body is read, the task answers, the answer is the body of a
response. Knows both sides; not files, not engines.

The job's task says which endpoint a file is for: a line with another `url` fails, as one with another model does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import ValidationError

from hfray.errors import RowError, SpecError
from hfray.tasks.base import Summary, Task
from hfray.tasks.openai.requests import Body, ChatBody, CompletionBody, EmbeddingBody, invalid, parse_body
from hfray.tasks.openai.responses import chat_completion, completion, embeddings
from hfray.types import Encoded, Output, Result, Row

if TYPE_CHECKING:
    import pyarrow as pa

Url = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]
BODIES: dict[Url, type[Body]] = {
    "/v1/chat/completions": ChatBody,
    "/v1/completions": CompletionBody,
    "/v1/embeddings": EmbeddingBody,
}
MAX_CUSTOM_ID_CHARS = 512


def url_of(options: Any) -> Url:
    """The endpoint that a task's options are for. Raises SpecError where there is none."""
    if options.name == "text-generation":
        return "/v1/chat/completions" if options.input == "messages" else "/v1/completions"
    if options.name == "feature-extraction" and options.pooling != "none":
        return "/v1/embeddings"
    raise SpecError(
        "input.format: openai-batch holds requests for chats, texts and embeddings: use task text-generation (with "
        "input: messages for /v1/chat/completions, input: prompt for /v1/completions) or feature-extraction "
        "(/v1/embeddings)"
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """One line, checked."""

    custom_id: str
    body: Body
    copies: int
    """Equal choices: `n` of a request that does not sample."""


@dataclass(frozen=True, slots=True)
class _Carry:
    asked: _Asked
    parts: tuple[tuple[int, Any], ...]
    """(number of items, the task's own carry) of each of its rows."""
    num_tokens: int


class BatchRequests(Task):
    """Around another task; a result is the JSON text of a response's body, without `id` and `created`."""

    name: ClassVar[str] = "openai-batch"
    summary: ClassVar[str] = "the requests of an OpenAI batch file"
    mode: ClassVar[Literal["forward", "generate"]] = "generate"  # its items may sample, so they need seeds
    auto_model: ClassVar[str] = ""
    columns: ClassVar[tuple[str, ...]] = ("custom_id", "method", "url", "body")

    def __init__(self, task: Task, models: Mapping[str, str | None]) -> None:
        """models: what `body.model` may be, and the adapter that it stands for. Raises SpecError for a task that no
        endpoint is for."""
        super().__init__(task.options, task.processor, task.model_info)
        self._task = task
        self._models = dict(models)
        self._url = url_of(task.options)

    def encode(self, rows: Sequence[Row], options: Any = None) -> list[Encoded | RowError]:
        encoded: list[Encoded | RowError | None] = [None] * len(rows)
        asked: dict[int, _Asked] = {}
        groups: dict[Any, list[tuple[int, Row]]] = {}
        for index, row in enumerate(rows):
            try:
                asked[index], own = self._asked(row)
                groups.setdefault(own, []).extend((index, each) for each in asked[index].body.rows())
            except RowError as error:
                encoded[index] = error
        parts: dict[int, list[Encoded | RowError]] = {}
        for own, members in groups.items():
            try:
                found = self._task.encode([row for _, row in members], own)
            except SpecError as error:
                found = [RowError(str(error), type="InvalidRequest")] * len(members)
            for (index, _), each in zip(members, found, strict=True):
                parts.setdefault(index, []).append(each)
        for index, line in asked.items():
            if encoded[index] is None:
                encoded[index] = _joined(line, parts[index], self._models[line.body.model])
        return [each for each in encoded if each is not None]

    def decode(self, outputs: Sequence[Output], carry: Any) -> Result:
        results, start = [], 0
        for num_items, inner in carry.parts:
            results.append(self._task.decode(outputs[start : start + num_items], inner))
            start += num_items
        asked = carry.asked
        if isinstance(asked.body, EmbeddingBody):
            body = embeddings(results, asked.body, carry.num_tokens)
        else:
            choices = [(each if isinstance(each, list) else [each]) * asked.copies for each in results]
            respond = chat_completion if isinstance(asked.body, ChatBody) else completion
            body = respond(choices, asked.body, asked.custom_id)
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"))

    def result_type(self) -> pa.DataType:
        """string"""
        import pyarrow as pa

        return pa.string()

    def summarize(self, result: Result) -> Summary:
        """Why the first choice ends."""
        choices = json.loads(result).get("choices")
        return Summary(label=choices[0]["finish_reason"]) if choices else Summary()

    def _asked(self, row: Row) -> tuple[_Asked, Any]:
        """The line, and the task's options for it. Raises RowError."""
        custom_id = row.get("custom_id")
        if not isinstance(custom_id, str) or not custom_id:
            raise RowError("custom_id: must be a text that tells the line from all others", type="MissingCustomId")
        if len(custom_id) > MAX_CUSTOM_ID_CHARS:
            raise RowError(f"custom_id: has over {MAX_CUSTOM_ID_CHARS} characters", type="MissingCustomId")
        if row.get("method") != "POST":
            raise RowError(f"method: is {row.get('method')!r:.40}, and must be POST", type="InvalidMethod")
        if row.get("url") != self._url:
            raise RowError(
                f"url: is {row.get('url')!r:.80}; this batch is for {self._url}, and one for another endpoint is "
                "another job",
                type="InvalidUrl",
            )
        body = parse_body(row.get("body"), BODIES[self._url])
        if body.model not in self._models:
            known = ", ".join(self._models)
            raise RowError(f"model: {body.model!r:.120} is not served here; this job has {known}", type="ModelNotFound")
        changes = body.options()
        copies = 1
        if changes.get("num_return_sequences", 1) > 1 and not changes.get("temperature", self.options_temperature):
            copies = changes.pop("num_return_sequences")
        if not changes:
            return _Asked(custom_id, body, copies), self._task.options
        try:
            own = type(self.options).model_validate({**self.options.model_dump(), **changes})
        except ValidationError as error:
            raise invalid(error) from None
        return _Asked(custom_id, body, copies), own

    @property
    def options_temperature(self) -> float:
        """The job's own."""
        return float(getattr(self.options, "temperature", 0.0))


def _joined(asked: _Asked, parts: Sequence[Encoded | RowError], adapter: str | None) -> Encoded | RowError:
    """The rows of one request: one that fails fails it."""
    found = []
    for each in parts:
        if isinstance(each, RowError):
            return each
        found.append(each)
    items = tuple(replace(item, adapter=adapter) for each in found for item in each.items)
    carry = _Carry(
        asked, tuple((len(each.items), each.carry) for each in found), sum(item.num_tokens for item in items)
    )
    places = None
    if getattr(asked.body, "seed", None) is not None:
        places = tuple((place, sample) for place, each in enumerate(found) for sample in range(len(each.items)))
    return Encoded(items, carry, any(each.truncated for each in found), places)
