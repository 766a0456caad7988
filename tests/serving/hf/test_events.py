from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from hfray.serving.hf.call import Call
from hfray.serving.hf.events import End, EventStream, Token, stream_event
from hfray.serving.hf.schemas import event_schema
from hfray.serving.messages import Piece
from tests.serving.hf.support import violations
from tests.serving.hf.test_generated import TASK, call_of


def event(call: Call, *arguments: Any) -> dict[str, Any]:
    found = stream_event(call, *arguments)
    jsonschema.Draft202012Validator(event_schema()).validate(found)
    assert violations(found, TASK, "stream_output") == []
    return found


def test_events() -> None:
    call = call_of(stream=True, seed=3)
    token = {"id": 5, "text": " upon", "logprob": -0.5, "special": False}
    assert event(call, 1, Token(5, " upon", -0.5)) == {"index": 1, "token": token}
    last = event(call, 2, Token(5, " upon", -0.5), End(" upon upon", "length", 4, 2))
    assert last == {
        "index": 2,
        "token": token,
        "generated_text": " upon upon",
        "details": {"finish_reason": "length", "generated_tokens": 2, "input_length": 4, "seed": 3},
    }


@pytest.mark.parametrize(
    ("finish", "at_stop", "reason"),
    [("stop", False, "eos_token"), ("stop", True, "stop_sequence"), ("length", False, "length")],
)
def test_how_a_stream_ends(finish: Any, at_stop: bool, reason: str) -> None:
    call = call_of(stream=True, return_full_text=True)
    last = event(call, 1, Token(2, "", -0.1, special=True), End(" upon", finish, 1, 1, at_stop))
    assert last["details"]["finish_reason"] == reason
    assert last["generated_text"] == "Once upon"
    assert last["token"]["special"] is True


def test_the_likeliest_tokens_of_an_event() -> None:
    top = (Token(5, "a", -0.5), Token(6, "b", -0.9))
    assert [
        each["id"]
        for each in event(call_of(stream=True, top_n_tokens=2), 1, Token(5, "a", -0.5, top=top))["top_tokens"]
    ] == [5, 6]
    assert "top_tokens" not in event(call_of(stream=True), 1, Token(5, "a", -0.5, top=top))


def score(text: str, **more: Any) -> dict[str, Any]:
    return {"token": text, "logprob": -0.5, "top": [], **more}


def streamed(call: Call, *pieces: Piece) -> list[dict[str, Any]]:
    stream = EventStream(call)
    events = [each for piece in pieces for each in stream.push(piece)]
    for each in events:
        jsonschema.Draft202012Validator(event_schema()).validate(each)
    assert [each["index"] for each in events] == list(range(1, len(events) + 1))
    return events


def test_pieces_are_told_token_by_token() -> None:
    events = streamed(
        call_of(stream=True),
        Piece(0, " there", logprobs=(score(" there"),), token_ids=(5,), num_new_tokens=1),
        Piece(0, " was a", logprobs=(score(" was"), score(" a")), token_ids=(6, 7), num_new_tokens=2, finish="length",
              num_tokens=4),
    )  # fmt: skip
    assert [(each["token"]["id"], each["token"]["text"]) for each in events] == [(5, " there"), (6, " was"), (7, " a")]
    assert ["details" in each for each in events] == [False, False, True]
    assert events[-1]["generated_text"] == " there was a"
    assert events[-1]["details"] == {"finish_reason": "length", "generated_tokens": 3, "input_length": 4}
    assert all(violations(each, TASK, "stream_output") == [] for each in events)


def test_half_characters_stand_with_a_later_token() -> None:
    broken = "\N{REPLACEMENT CHARACTER}"
    events = streamed(
        call_of(stream=True),
        Piece(0, "", logprobs=(score(broken),), token_ids=(1,), num_new_tokens=1),
        Piece(0, "ü!", logprobs=(score(broken), score("!")), token_ids=(2, 3), num_new_tokens=2, finish="length"),
    )
    assert [each["token"]["text"] for each in events] == ["", "", "ü!"]
    assert events[-1]["generated_text"] == "ü!"


@pytest.mark.parametrize(
    ("logprobs", "stop", "reason"),
    [((), ["x"], "eos_token"), ((score("x"),), ["x"], "stop_sequence"), ((score("x"),), [], "eos_token")],
)
def test_why_the_pieces_end(logprobs: Any, stop: list[str], reason: str) -> None:
    last = Piece(0, "", logprobs=logprobs, token_ids=(2,), num_new_tokens=1, finish="stop", num_tokens=1)
    (found,) = streamed(call_of(stream=True, stop=stop), last)
    assert found["details"]["finish_reason"] == reason
    assert found["token"]["special"] is (not logprobs)


def test_an_end_without_a_token_is_told() -> None:
    (found,) = streamed(call_of(stream=True), Piece(0, "", finish="stop", num_tokens=1))
    assert (found["token"]["text"], found["generated_text"], found["details"]["generated_tokens"]) == ("", "", 0)
