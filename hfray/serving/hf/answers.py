"""Results of tasks as bodies of answers. Knows the shapes that clients read; not requests, not models.

The shapes are those that `huggingface_hub.InferenceClient` reads. Where it and the published schemas differ, it wins:

- text-classification: a list of labels for each input, also for one (the client takes `[0]`).
- summarization, translation, text2text-generation, text-generation: a list, also for one text (the first three are read
  as lists; so does TGI answer at `/`, and huggingface.js takes nothing else).
- question-answering: one object where one answer is wanted for one question, as the client's own documentation has it.
- fill-mask: the schema demands `tokenStr` and describes `token_str`; both are there.
- feature-extraction: a list of vectors, also for one text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hfray.serving.hf.call import Call
from hfray.serving.hf.checks import wrong
from hfray.tasks import TASKS
from hfray.types import Result

Render = Callable[[Call, Sequence[Result], Mapping[str, Any]], Any]
"""(call, one result per row, the endpoint's own options) to the body."""


def setting(call: Call, own: Mapping[str, Any], option: str) -> Any:
    """An option as the call was answered: the request's, else the endpoint's, else the task's default."""
    if option in call.changes:
        return call.changes[option]
    return own[option] if option in own else TASKS[call.task].Options.model_fields[option].default


def classes(call: Call, results: Sequence[Result], own: Mapping[str, Any]) -> Any:
    """A list of labels, or with several inputs a list of such lists."""
    return _each(call, [_labels(result) for result in results])


def text_classes(call: Call, results: Sequence[Result], own: Mapping[str, Any]) -> Any:
    return [_labels(result) for result in results]


def entities(call: Call, results: Sequence[Result], own: Mapping[str, Any]) -> Any:
    key = "entity" if setting(call, own, "aggregation") == "none" else "entity_group"
    found = [
        [{key: each["entity"], **{name: each[name] for name in ("score", "word", "start", "end")}} for each in result]
        for result in results
    ]
    return _each(call, found)


def spans(call: Call, results: Sequence[Result], own: Mapping[str, Any]) -> Any:
    """Without any answer where one is wanted: the answer "" with score 0, as Transformers' pipeline gave it."""
    names = ("answer", "score", "start", "end")
    found: list[Any] = [[{name: each[name] for name in names} for each in result] for result in results]
    if setting(call, own, "top_k") == 1:
        none = {"answer": "", "score": 0.0, "start": 0, "end": 0}
        found = [answers[0] if answers else none for answers in found]
    return _each(call, found)


def masks(call: Call, results: Sequence[Result], own: Mapping[str, Any]) -> Any:
    """A list of tokens; of a text with several masks a list of such lists."""
    found = [[[{**each, "tokenStr": each["token_str"]} for each in mask] for mask in result] for result in results]
    return _each(call, [each[0] if len(each) == 1 else each for each in found])


def vectors(call: Call, results: Sequence[Result], own: Mapping[str, Any]) -> Any:
    """A list of vectors; with pooling none a list of one vector per token, for several texts a list of such lists."""
    wanted = call.form.get("dimensions")
    for result in results:
        vector = result[0] if result and isinstance(result[0], list) else result
        if wanted is not None and len(vector) != wanted:
            raise wrong("dimensions", f"the model's vectors have {len(vector)}; leave it out")
    is_nested = bool(results[0]) and isinstance(results[0][0], list)
    return results[0] if is_nested and not call.many else list(results)


def foreseen(call: Call, results: Sequence[Result], own: Mapping[str, Any]) -> Any:
    return _each(call, list(results))


def similarities(call: Call, results: Sequence[Result], own: Mapping[str, Any]) -> Any:
    return list(results[0])


def ranks(call: Call, results: Sequence[Result], own: Mapping[str, Any]) -> Any:
    """Best first, as TEI answers."""
    texts = call.rows[0]["text"]
    repeated = bool(call.form.get("return_text"))
    return [
        {"index": each["index"], "score": each["score"], **({"text": texts[each["index"]]} if repeated else {})}
        for each in results[0]
    ]


def written(key: str) -> Render:
    """Texts of encoder-decoder models: a list of objects; of lists of them where an input has several texts."""

    def render(call: Call, results: Sequence[Result], own: Mapping[str, Any]) -> Any:
        found = [[{key: text} for text in ([result] if isinstance(result, str) else result)] for result in results]
        if all(len(each) == 1 for each in found):
            return [each[0] for each in found]
        return _each(call, found)

    return render


def _each(call: Call, found: list[Any]) -> Any:
    return found if call.many else found[0]


def _labels(result: Result) -> list[dict[str, Any]]:
    return [{"label": each["label"], "score": each["score"]} for each in result]
