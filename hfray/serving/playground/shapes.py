"""For each task: which fields the page shows, the request that is made of them, and how its answer looks. Knows tasks
and the protocol's bodies; nothing of Gradio. A new task needs a line in SHAPES."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hfray.serving.errors import RequestError
from hfray.serving.messages import Card
from hfray.serving.playground import views

SHOWN_LABELS = 5


@dataclass(frozen=True, slots=True)
class Filled:
    """What somebody has filled in; fields that the task does not show are empty."""

    text: str = ""
    second: str = ""
    labels: str = ""
    source: str = ""
    target: str = ""
    image: str = ""
    """A `data:` URL, as the browser read the file."""


@dataclass(frozen=True, slots=True)
class Field:
    label: str
    placeholder: str = ""
    num_lines: int = 4


Body = Callable[[Filled, Card], dict[str, Any]]
View = Callable[[Filled, Any], str]


@dataclass(frozen=True, slots=True)
class Shape:
    """text, second: None hides the field."""

    does: str
    text: Field | None
    body: Body
    view: View
    second: Field | None = None
    has_labels: bool = False
    has_languages: bool = False
    has_image: bool = False
    run: str = "Run"


def curl(address: str, path: str, body: dict[str, Any], *, with_key: bool) -> str:
    """The same request as a command. An image stands in it as the file that is to be sent."""
    head = [f"curl {address}{path}", "-H 'content-type: application/json'"]
    if with_key:
        head.append('-H "authorization: Bearer $API_KEY"')
    image = str(body.get("inputs", "")) if _is_image(body) else ""
    data = json.dumps(body | ({"inputs": "@"} if image else {}), ensure_ascii=False)
    if not image:
        return " \\\n  ".join([*head, f"-d {shlex.quote(data)}"])
    kind = image.partition("image/")[2].partition(";")[0] or "jpeg"
    for special in ("\\", "$", "`"):  # the shell reads what stands between the marks
        data = data.replace(special, f"\\{special}")
    data = data.replace('"inputs": "@"', f'"inputs": "$(base64 -w0 image.{kind})"', 1)
    return " \\\n  ".join([*head, "-d @- <<END"]) + f"\n{data}\nEND"


def _is_image(body: Mapping[str, Any]) -> bool:
    return isinstance(body.get("inputs"), str) and body["inputs"].startswith("data:image/")


# -- bodies


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _with_parameters(inputs: Any, **parameters: Any) -> dict[str, Any]:
    given = {name: value for name, value in parameters.items() if value}
    return {"inputs": inputs, **({"parameters": given} if given else {})}


def _plain(filled: Filled, card: Card) -> dict[str, Any]:
    return {"inputs": filled.text}


def _top_k(card: Card) -> int:
    return max(int(card.options.get("top_k") or 0), min(SHOWN_LABELS, len(card.labels)))


def _classified(filled: Filled, card: Card) -> dict[str, Any]:
    return _with_parameters(filled.text, top_k=_top_k(card))


def _labelled(filled: Filled, card: Card) -> dict[str, Any]:
    labels = [label.strip() for label in filled.labels.split(",") if label.strip()]
    return _with_parameters(filled.text, candidate_labels=labels)


def _image_classified(filled: Filled, card: Card) -> dict[str, Any]:
    return _with_parameters(_image(filled), top_k=_top_k(card))


def _image_labelled(filled: Filled, card: Card) -> dict[str, Any]:
    return {**_labelled(filled, card), "inputs": _image(filled)}


def _image(filled: Filled) -> str:
    """Bytes that came with the form, and nothing that would have to be fetched."""
    if not filled.image.startswith("data:image/"):
        raise RequestError("choose an image first", status=422)
    return filled.image


def _tagged(filled: Filled, card: Card) -> dict[str, Any]:
    own = card.options.get("aggregation")
    return _with_parameters(filled.text, aggregation_strategy="simple" if own in (None, "none") else None)


def _translated(filled: Filled, card: Card) -> dict[str, Any]:
    return _with_parameters(filled.text, src_lang=filled.source.strip(), tgt_lang=filled.target.strip())


def _question(filled: Filled, card: Card) -> dict[str, Any]:
    return {"inputs": {"question": filled.text, "context": filled.second}}


def _compared(filled: Filled, card: Card) -> dict[str, Any]:
    return {"inputs": {"source_sentence": filled.text, "sentences": _lines(filled.second)}}


def _ranked(filled: Filled, card: Card) -> dict[str, Any]:
    return {"query": filled.text, "texts": _lines(filled.second)}


def _embedded(filled: Filled, card: Card) -> dict[str, Any]:
    return {"inputs": _lines(filled.text)}


# -- views


def _first_labels(filled: Filled, answer: Any) -> str:
    return views.bars(answer[0] if answer and isinstance(answer[0], list) else answer)


def _answer_view(filled: Filled, answer: Any) -> str:
    first = answer if isinstance(answer, dict) else (answer or [{"answer": ""}])[0]
    return views.answer_in(filled.second, first)


def _written(key: str) -> View:
    return lambda filled, answer: views.texts(each[key] for each in answer)


def _near(filled: Filled, answer: Any) -> str:
    rows = sorted(zip(_lines(filled.second), answer, strict=True), key=lambda row: -row[1])
    return views.table(["Text", "Similarity"], rows)


def _foreseen(filled: Filled, answer: Any) -> str:
    rows = [[text, each["perplexity"], each["tokens"]] for text, each in zip(_lines(filled.text), answer, strict=True)]
    return views.table(["Text", "Perplexity", "Tokens"], rows)


def _ranking(filled: Filled, answer: Any) -> str:
    texts = _lines(filled.second)
    return views.table(["Text", "Score"], [[texts[each["index"]], each["score"]] for each in answer])


_TEXT = Field("Text")
_ONE_A_LINE = "one a line"

SHAPES: dict[str, Shape] = {
    "text-classification": Shape("Sorts a text into labels.", _TEXT, _classified, _first_labels, run="Classify"),
    "zero-shot-classification": Shape(
        "Sorts a text into labels of your own.", _TEXT, _labelled, _first_labels, has_labels=True, run="Classify"
    ),
    "token-classification": Shape(
        "Marks words in a text.", _TEXT, _tagged, lambda filled, answer: views.spans(filled.text, answer), run="Mark"
    ),
    "question-answering": Shape(
        "Finds an answer in a text.",
        Field("Question", num_lines=1),
        _question,
        _answer_view,
        second=Field("Text that holds the answer", num_lines=6),
        run="Answer",
    ),
    "fill-mask": Shape(
        "Fills in a word.",
        Field("Text with a mask", "the model's own word for a mask, such as [MASK] or <mask>"),
        _plain,
        lambda filled, answer: views.masks(answer),
        run="Fill in",
    ),
    "feature-extraction": Shape(
        "Turns texts into vectors.",
        Field("Texts", _ONE_A_LINE),
        _embedded,
        lambda filled, answer: views.vectors(_lines(filled.text), answer),
        run="Embed",
    ),
    "sentence-similarity": Shape(
        "Compares texts by meaning.",
        Field("Text", num_lines=2),
        _compared,
        _near,
        second=Field("Texts to compare it with", _ONE_A_LINE),
        run="Compare",
    ),
    "text-ranking": Shape(
        "Ranks texts by how well they answer.",
        Field("Question", num_lines=2),
        _ranked,
        _ranking,
        second=Field("Texts to rank", _ONE_A_LINE),
        run="Rank",
    ),
    "summarization": Shape(
        "Makes a text short.", Field("Text", num_lines=10), _plain, _written("summary_text"), run="Summarize"
    ),
    "translation": Shape(
        "Translates a text.", _TEXT, _translated, _written("translation_text"), has_languages=True, run="Translate"
    ),
    "text2text-generation": Shape("Turns a text into another.", _TEXT, _plain, _written("generated_text")),
    "perplexity": Shape("Tells how well texts are foreseen.", Field("Texts", _ONE_A_LINE), _embedded, _foreseen),
    "image-classification": Shape(
        "Sorts an image into labels.", None, _image_classified, _first_labels, has_image=True, run="Classify"
    ),
    "zero-shot-image-classification": Shape(
        "Sorts an image into labels of your own.",
        None,
        _image_labelled,
        _first_labels,
        has_labels=True,
        has_image=True,
        run="Classify",
    ),
    "text-generation": Shape(
        "Goes on with a text.", Field("Text to go on with"), _plain, _written("generated_text"), run="Write"
    ),
}
