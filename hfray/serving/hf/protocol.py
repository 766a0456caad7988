"""Bodies to calls, results to bodies, for every task. Knows the order of checks; the fields are each family's own.

Nothing here does input or output: nothing that a request names is ever opened or fetched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from hfray.serving.errors import RequestError
from hfray.serving.hf.call import Call, Limits
from hfray.serving.hf.checks import check_body, wrong
from hfray.serving.hf.fields import BadParameter, Body, Parameters, refusal, validated
from hfray.serving.hf.forms import FORMS
from hfray.serving.hf.images import begins_like_image, check_image
from hfray.tasks import TASKS
from hfray.tasks.generation_options import most_new_tokens
from hfray.types import Result, Row

_IMAGE_TYPES = ("image/", "application/octet-stream")
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_LISTS = {"sentence-similarity": ("text_pair", "inputs.sentences"), "text-ranking": ("text", "texts")}
"""Where one row holds the texts that are model inputs each, and their field."""


def parse(task: str, body: Any, limits: Limits, own: Mapping[str, Any] = _NOTHING) -> Call:
    """A decoded JSON body as a call. own: the endpoint's own task options, which the request's must agree with.

    Raises RequestError.
    """
    form = FORMS[task]
    check_body(body, limits, images=form.takes_image)
    parsed = validated(form.body, body)
    before = ""
    try:
        inputs = getattr(parsed, "inputs", None)
        if isinstance(inputs, list) and len(inputs) > limits.max_inputs:
            raise wrong("inputs", f"may have at most {limits.max_inputs:,} entries; send several requests")
        rows, many = parsed.rows(limits)
        parameters, before = parsed.asked()
        changes, columns = parameters.changes(limits), parameters.columns(limits)
        settled = {**own, **changes}
        _check_stream(parsed, many, settled)
        if parsed.is_stream:
            changes.setdefault("logprobs", parameters.form().get("top_n_tokens", 0))
        rows = [{**row, **columns} for row in rows]
        _check_items(task, rows, settled, limits)
        _check_options(task, settled, parameters, before)
    except BadParameter as error:
        raise wrong(f"{before}{error.name}" if error.name else "", str(error)) from None
    adapter = getattr(parameters, "adapter_id", None)
    return Call(task, tuple(rows), changes, many, parsed.is_stream, adapter, parameters.form())


def is_image(task: str, media_type: str, data: bytes) -> bool:
    """Whether a body is an image itself. InferenceClient calls an image in memory JSON, and `requests` sends bytes
    without a media type; both are read by what they begin with."""
    return media_type.startswith(_IMAGE_TYPES) or (FORMS[task].takes_image and begins_like_image(data))


def parse_image(task: str, data: bytes, limits: Limits) -> Call:
    """A body that is an image, without parameters, as a call. Raises RequestError, also for a task without images."""
    if not FORMS[task].takes_image:
        raise RequestError(f"{task} takes no images; send JSON", status=415)
    return Call(task, ({"image": check_image(data, limits)},), {}, many=False)


def render(call: Call, results: Sequence[Result], own: Mapping[str, Any] = _NOTHING) -> Any:
    """The body of an answer: one result per row, none of which failed. own: as in `parse`.

    Raises RequestError where only the results show that a parameter cannot be followed (`dimensions`).
    """
    if len(results) != len(call.rows):
        raise ValueError(f"{len(results)} results for {len(call.rows)} rows")
    return FORMS[call.task].render(call, results, own)


def _check_stream(parsed: Body, many: bool, settled: Mapping[str, Any]) -> None:
    if not parsed.is_stream:
        return
    if many:
        raise wrong("stream", "one text can be streamed, not a list; send several requests")
    if settled.get("num_return_sequences", 1) > 1:
        raise wrong("stream", "one text can be streamed; leave out num_return_sequences")


def _check_items(task: str, rows: Sequence[Row], settled: Mapping[str, Any], limits: Limits) -> None:
    column, where = _LISTS.get(task, ("", "inputs"))
    num_sequences = settled.get("num_return_sequences", 1)
    per_row = max(len(rows[0].get("candidate_labels", ())), num_sequences)
    num_items = sum(len(row[column]) for row in rows) if column else len(rows) * per_row
    if num_items > limits.max_items:
        times = "" if column else f" (inputs times {'labels' if 'candidate_labels' in rows[0] else 'sequences'})"
        raise wrong(
            where, f"makes {num_items:,} model inputs{times}, over the {limits.max_items:,} of a request; send several"
        )
    if TASKS[task].mode == "generate":
        num_tokens = most_new_tokens(settled, len(rows))
        if num_tokens > limits.max_total_tokens:
            raise wrong(
                "parameters.max_new_tokens",
                f"makes {num_tokens:,} tokens for all texts together, over a request's {limits.max_total_tokens:,}",
            )


def _check_options(task: str, settled: Mapping[str, Any], parameters: Parameters, before: str) -> None:
    """The task's own checks of its options, in the request's words."""
    options = TASKS[task].Options
    try:
        options.model_validate({**settled, "name": task})
    except ValidationError as error:
        names = {option: name for name, option in parameters.names.items()}
        found = refusal(options, error, names)
        if found.param is None:
            raise wrong(before.removesuffix("."), str(found).removeprefix("the body: ")) from None
        raise wrong(f"{before}{found.param}", str(found).removeprefix(f"{found.param}: ")) from None
