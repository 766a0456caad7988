"""The events of a streamed text-generation, in TGI's words (text-generation-inference). Knows their fields and a
replica's pieces; not models, not how events travel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from hfray.serving.hf.call import Call
from hfray.serving.hf.generated import FINISH, seed_of
from hfray.serving.messages import Piece


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a stream."""

    id: int
    text: str
    logprob: float | None
    """None: unknown. A schema-true event has one."""
    special: bool = False
    top: tuple[Token, ...] = ()
    """The likeliest tokens at its place."""


@dataclass(frozen=True, slots=True)
class End:
    """What the last event of a stream adds."""

    text: str
    """All that was written, without the prompt."""
    finish: Literal["stop", "length"]
    """As in results of the task."""
    num_tokens: int
    """Of the prompt."""
    num_new_tokens: int
    at_stop: bool = False
    """Whether one of the request's `stop` texts ended it."""


def stream_event(call: Call, index: int, token: Token, end: End | None = None) -> dict[str, Any]:
    """The value of one `data:` line. index: the token's place, from 1 as TGI counts; end: with the last token."""
    event: dict[str, Any] = {"index": index, "token": _streamed(token)}
    if call.form.get("top_n_tokens"):
        event["top_tokens"] = [_streamed(each) for each in token.top]
    if end is None:
        return event
    before = str(call.rows[0]["prompt"]) if call.form.get("return_full_text") else ""
    event["generated_text"] = before + end.text
    event["details"] = {
        "finish_reason": FINISH[end.finish] if not end.at_stop else "stop_sequence",
        "generated_tokens": end.num_new_tokens,
        "input_length": end.num_tokens,
        **seed_of(call),
    }
    return event


class EventStream:
    """The pieces of one text as events, one for each token. Not thread-safe.

    The texts of the tokens joined are the text of the answer: where a token alone is no text (half a character) or was
    held back (what might begin a stop text), it stands with a later token.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._num_tokens = 0
        self._texts: list[str] = []

    def push(self, piece: Piece) -> list[dict[str, Any]]:
        """The values of its `data:` lines; the last one has the details if the text ends."""
        self._texts.append(piece.text)
        tokens = _tokens(piece)
        if not tokens and piece.finish is not None:
            # Nothing was generated; the end needs an event all the same, and an event needs a token.
            tokens = [Token(0, piece.text, None, special=True)]
        events = []
        for place, token in enumerate(tokens, 1):
            end = self._end(piece) if place == len(tokens) and piece.finish is not None else None
            events.append(stream_event(self._call, self._num_tokens + place, token, end))
        self._num_tokens += len(piece.token_ids)
        return events

    def _end(self, piece: Piece) -> End:
        return End(
            "".join(self._texts),
            "length" if piece.finish == "length" else "stop",
            piece.num_tokens,
            self._num_tokens + len(piece.token_ids),
            at_stop=piece.finish == "stop" and bool(self._call.form.get("stop")) and not _ends_in_special(piece),
        )


def _ends_in_special(piece: Piece) -> bool:
    """A token that ends the text by itself has no log-probability."""
    return len(piece.logprobs) < len(piece.token_ids)


def _tokens(piece: Piece) -> list[Token]:
    num = len(piece.token_ids)
    scores = [*piece.logprobs, *[None] * (num - len(piece.logprobs))]
    texts = ["" if score is None else str(score["token"]) for score in scores]
    if "".join(texts) != piece.text:
        texts = [*[""] * (num - 1), piece.text] if num else []
    return [
        Token(
            number,
            text,
            None if score is None else score["logprob"],
            special=score is None and piece.finish is not None,
            top=tuple(
                Token(top["id"], top["token"], top["logprob"]) for top in (score or {}).get("top", ()) if "id" in top
            ),
        )
        for number, text, score in zip(piece.token_ids, texts, scores, strict=True)
    ]


def _streamed(token: Token) -> dict[str, Any]:
    return {"id": token.id, "text": token.text, "logprob": token.logprob, "special": token.special}
