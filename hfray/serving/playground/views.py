"""Answers as HTML. Knows the forms of the Hugging Face protocol's answers; nothing of Gradio. All text is escaped: it
comes from models and strangers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from hfray.serving.messages import Card

NUM_COLOURS = 6
_WITH_LABELS = ("text-classification", "token-classification", "image-classification")
SHOWN_NUMBERS = 6
"""Of a vector."""


def bars(labels: Iterable[Mapping[str, Any]]) -> str:
    """Labels with their scores, best first as they come."""
    rows = (
        f'<li style="--share:{_share(each["score"]):.2f}%"><span>{_text(each["label"])}</span>'
        f"<b>{_score(each['score'])}</b></li>"
        for each in labels
    )
    return f'<ol class="hf-bars">{"".join(rows)}</ol>'


def spans(text: str, entities: Iterable[Mapping[str, Any]]) -> str:
    """A text with its entities marked. entities: entity_group or entity, score, start and end in characters."""
    parts, at, colours = [], 0, dict[str, int]()
    for each in sorted(entities, key=lambda each: (each["start"], -each["end"])):
        start, end = each["start"], each["end"]
        if start < at or end <= start:
            continue  # inside one that is marked already
        name = str(each.get("entity_group") or each.get("entity") or "")
        colour = colours.setdefault(name, len(colours) % NUM_COLOURS)
        parts += [
            _text(text[at:start]),
            f'<mark class="hf-c{colour}" title="{_score(each["score"])}">{_text(text[start:end])}'
            f"<sub>{_text(name)}</sub></mark>",
        ]
        at = end
    return f'<p class="hf-text">{"".join(parts)}{_text(text[at:])}</p>'


def answer_in(context: str, answer: Mapping[str, Any]) -> str:
    """The context with the answer marked in it, below the answer."""
    if not answer["answer"]:
        return '<p class="hf-none">There is no answer in this text.</p>'
    marked = spans(context, [{"entity": "", **answer}])
    head = f'<p class="hf-answer">{_text(answer["answer"])} <b>{_score(answer["score"])}</b></p>'
    return head + marked


def masks(answer: Sequence[Any]) -> str:
    """What fits each mask."""
    lists = answer if answer and isinstance(answer[0], list) else [answer]
    return "".join(bars({"label": each["token_str"], "score": each["score"]} for each in mask) for mask in lists)


def texts(found: Iterable[str]) -> str:
    return "".join(f'<p class="hf-text">{_text(text)}</p>' for text in found)


def writing(text: str, written: str, *, ended: bool) -> str:
    """A prompt and what follows it so far."""
    cursor = "" if ended else '<i class="hf-cursor"></i>'
    return f'<p class="hf-text"><span class="hf-prompt">{_text(text)}</span>{_text(written)}{cursor}</p>'


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Numbers in columns of one width; a cell that is no number is text."""
    cells = "".join(f"<th>{_text(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td{_numeric(cell)}>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="hf-scroll"><table class="hf-table"><tr>{cells}</tr>{body}</table></div>'


def vectors(lines: Sequence[str], found: Sequence[Any]) -> str:
    """Of each text the first numbers; of several also how near each is to the first (the cosine)."""
    flat = [_mean(vector) if isinstance(vector[0], list) else vector for vector in found]
    several = len(flat) > 1
    rows = []
    for line, vector in zip(lines, flat, strict=True):
        begin = ", ".join(f"{number:.3f}" for number in vector[:SHOWN_NUMBERS])
        row: list[Any] = [line, f"{begin}, …" if len(vector) > SHOWN_NUMBERS else begin]
        rows.append([*row, _cosine(flat[0], vector)] if several else row)
    head = ["Text", f"Vector of {len(flat[0])}", *(["Nearness to the first"] if several else [])]
    return table(head, rows)


def refusal(message: str) -> str:
    return f'<p class="hf-error" role="alert">{_text(message)}</p>'


def code(text: str) -> str:
    """A command to copy."""
    return f"<details class=hf-curl><summary>as curl</summary><pre>{_text(text)}</pre></details>" if text else ""


def _text(value: Any) -> str:
    return escape(str(value))


def _score(score: float) -> str:
    return f"{score:.3f}" if abs(score) < 1000 else f"{score:.3g}"


def _share(score: float) -> float:
    """A bar's width in percent; scores that are bare logits have a full or an empty one."""
    return min(1.0, max(0.0, score)) * 100


def _cell(cell: Any) -> str:
    return _score(cell) if isinstance(cell, float) else _text(cell)


def _numeric(cell: Any) -> str:
    return ' class="hf-number"' if isinstance(cell, float | int) else ""


def _mean(rows: Sequence[Sequence[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    norm = math.sqrt(sum(each * each for each in one) * sum(each * each for each in other))
    return sum(a * b for a, b in zip(one, other, strict=True)) / norm if norm else 0.0


def head(key_id: str | None) -> str:
    """The page's first line."""
    who = "" if key_id is None else f'<span>{_text(key_id)} · <a href="/playground/logout">log out</a></span>'
    return f'<header class="hf-head"><h1>Playground</h1>{who}</header>'


def about(card: Card, does: str) -> str:
    """What is known of a model, in a line."""
    facts = [card.task]
    if card.task in _WITH_LABELS and card.labels:
        facts.append(f"{len(card.labels)} labels")
    if card.max_length is not None:
        facts.append(f"{card.max_length:,} tokens at most")
    return f'<p class="hf-about">{_text(does)} <span>{_text(" · ".join(facts))}</span></p>'


def note(message: str) -> str:
    return f'<p class="hf-none">{_text(message)}</p>'
