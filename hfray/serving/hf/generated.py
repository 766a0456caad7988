"""Answers of text-generation in TGI's words (text-generation-inference). Knows their fields; not requests, not models,
not streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hfray.serving.hf.call import Call
from hfray.types import Result

FINISH: Mapping[str, str] = {"length": "length", "stop": "eos_token", "tool_calls": "eos_token"}
"""Why a task ended a text, in TGI's words."""


def texts(call: Call, results: Sequence[Result], own: Mapping[str, Any]) -> Any:
    """A list of texts, one without `num_return_sequences`; of several prompts a list of such lists.

    A result is a text or the object of a detailed one, or a list of either.
    """
    found = [[_text(call, each) for each in (result if isinstance(result, list) else [result])] for result in results]
    return found if call.many else found[0]


def _text(call: Call, result: Any) -> dict[str, Any]:
    if isinstance(result, str):
        return {"generated_text": result}
    answer: dict[str, Any] = {"generated_text": result["text"]}
    if call.form.get("details"):
        answer["details"] = _details(call, result)
    return answer


def _details(call: Call, result: Mapping[str, Any]) -> dict[str, Any]:
    tokens = result["logprobs"] or []
    # A result tells of both ends as "stop"; the tokens still hold the text that the answer was cut at.
    whole = "".join(each["token"] for each in tokens)
    at_stop = result["finish"] == "stop" and any(text in whole for text in call.form.get("stop", ()))
    details = {
        "finish_reason": "stop_sequence" if at_stop else FINISH[result["finish"]],
        "generated_tokens": result["completion_tokens"],
        "prefill": [],
        "tokens": _told(tokens),
        **seed_of(call),
    }
    if call.form.get("top_n_tokens"):
        details["top_tokens"] = [_told(each["top"]) for each in tokens]
    return details


def _told(tokens: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those whose number in the vocabulary is known: the format does not allow a token without."""
    return [
        {"id": each["id"], "text": each["token"], "logprob": each["logprob"], "special": bool(each.get("special"))}
        for each in tokens
        if "id" in each
    ]


def seed_of(call: Call) -> dict[str, Any]:
    """What `details` say of the seed: the request's, if it gave one."""
    return {"seed": call.form["seed"]} if "seed" in call.form else {}
