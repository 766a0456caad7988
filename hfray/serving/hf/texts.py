"""Bodies of the tasks that read texts and write none. Knows their parameters; not answers, not models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from hfray.serving.hf.call import Limits
from hfray.serving.hf.fields import BadParameter, Body, Count, Fields, Parameters, Texts, at_most
from hfray.tasks.tags import Aggregation
from hfray.types import Row

Function = Literal["sigmoid", "softmax", "none"]


class TextBody(Body):
    """`inputs`: one text or several."""

    inputs: str | Texts

    def rows(self, limits: Limits) -> tuple[list[dict[str, Any]], bool]:
        many = isinstance(self.inputs, list)
        return [{"text": text} for text in (self.inputs if isinstance(self.inputs, list) else [self.inputs])], many


class ClassificationParameters(Parameters):
    names: ClassVar[Mapping[str, str]] = {"function_to_apply": "function", "top_k": "top_k"}
    function_to_apply: Function | None = None
    """Logits to scores; left out: what fits the model."""
    top_k: Count | None = None
    """How many labels to give, best first."""


class TextPair(Fields):
    """Two texts that are classified together."""

    text: str
    text_pair: str


class TextClassificationBody(Body):
    inputs: str | TextPair | Annotated[list[str | TextPair], Field(min_length=1)]
    """One text or pair of texts, or several."""
    parameters: ClassificationParameters | None = None

    def rows(self, limits: Limits) -> tuple[list[dict[str, Any]], bool]:
        many = isinstance(self.inputs, list)
        each = self.inputs if isinstance(self.inputs, list) else [self.inputs]
        return [{"text": one} if isinstance(one, str) else one.model_dump() for one in each], many


class PerplexityParameters(Parameters):
    names: ClassVar[Mapping[str, str]] = {"stride": "stride", "append_eos": "append_eos"}
    stride: Annotated[int, Field(ge=0)] | None = None
    """Tokens of context that further windows of a long text begin with."""
    append_eos: bool | None = None
    """Whether the end of the text is to be foreseen too."""

    def changes(self, limits: Limits) -> dict[str, Any]:
        at_most(self.given(), "stride", limits.max_stride_tokens)
        return super().changes(limits)


class PerplexityBody(TextBody):
    parameters: PerplexityParameters | None = None


class TokenClassificationParameters(Parameters):
    names: ClassVar[Mapping[str, str]] = {
        "aggregation_strategy": "aggregation",
        "ignore_labels": "ignore_labels",
        "stride": "stride",
    }
    aggregation_strategy: Aggregation | None = None
    """How tokens become entities."""
    ignore_labels: list[str] | None = None
    """Labels left out of the answer."""
    stride: Annotated[int, Field(ge=0)] | None = None
    """Tokens that neighbouring windows of a long text share."""

    def changes(self, limits: Limits) -> dict[str, Any]:
        at_most(self.given(), "stride", limits.max_stride_tokens)
        return super().changes(limits)


class TokenClassificationBody(TextBody):
    parameters: TokenClassificationParameters | None = None


class QuestionAnsweringParameters(Parameters):
    names: ClassVar[Mapping[str, str]] = {
        "top_k": "top_k",
        "doc_stride": "doc_stride",
        "max_answer_len": "max_answer_length",
        "max_seq_len": "max_length",
        "handle_impossible_answer": "no_answer",
    }
    only: ClassVar[Mapping[str, tuple[Any, ...]]] = {"align_to_words": (True,), "max_question_len": (64,)}
    top_k: Count | None = None
    """How many answers to give; above 1 the answer is a list."""
    doc_stride: Count | None = None
    """Tokens that neighbouring windows of a long context share."""
    max_answer_len: Count | None = None
    """Most tokens of an answer."""
    max_seq_len: Annotated[int, Field(ge=64)] | None = None
    """Most tokens of a window, question included."""
    max_question_len: int | None = None
    """Questions are not cut here."""
    handle_impossible_answer: bool | None = None
    """Whether "no answer" is an answer."""
    align_to_words: bool | None = None
    """Answers are whole words here."""

    def changes(self, limits: Limits) -> dict[str, Any]:
        given = self.given()
        at_most(given, "top_k", limits.max_candidates)
        at_most(given, "doc_stride", limits.max_stride_tokens)
        half = given.get("max_seq_len", 384) // 2
        if given.get("doc_stride", 0) > half:
            raise BadParameter(f"may be at most half of max_seq_len, {half}", name="doc_stride")
        return super().changes(limits)


class Question(Fields):
    question: str
    context: str


class QuestionAnsweringBody(Body):
    inputs: Question | Annotated[list[Question], Field(min_length=1)]
    """A question and the text that answers it, or several such pairs."""
    parameters: QuestionAnsweringParameters | None = None

    def rows(self, limits: Limits) -> tuple[list[dict[str, Any]], bool]:
        many = isinstance(self.inputs, list)
        return [each.model_dump() for each in (self.inputs if isinstance(self.inputs, list) else [self.inputs])], many


class CandidateParameters(Parameters):
    """Of the zero-shot tasks."""

    names: ClassVar[Mapping[str, str]] = {"hypothesis_template": "hypothesis_template"}
    candidate_labels: str | Texts | None = None
    """The labels to choose from, as a list or as one text with commas; left out: those of the endpoint."""
    hypothesis_template: Annotated[str, Field(max_length=1000)] | None = None
    """The sentence that says a label fits; the label takes the place of {}."""

    def changes(self, limits: Limits) -> dict[str, Any]:
        if self.hypothesis_template is not None and "{}" not in self.hypothesis_template:
            raise BadParameter('has no {} where the label goes, as in "This is about {}."', name="hypothesis_template")
        return super().changes(limits)

    def columns(self, limits: Limits) -> Row:
        # As a column, and not as an option: requests with other labels are then still answered in one batch.
        given = self.candidate_labels
        if given is None:
            return {}
        labels = [each.strip() for each in given.split(",") if each.strip()] if isinstance(given, str) else given
        if not labels or not all(label.strip() for label in labels):
            raise BadParameter("has no label, or an empty one", name="candidate_labels")
        if len(set(labels)) < len(labels):
            raise BadParameter("names a label twice", name="candidate_labels")
        if len(labels) > limits.max_items:
            raise BadParameter(f"may have at most {limits.max_items:,} labels here", name="candidate_labels")
        return {"candidate_labels": tuple(labels)}


class ZeroShotParameters(CandidateParameters):
    names: ClassVar[Mapping[str, str]] = {**CandidateParameters.names, "multi_label": "multi_label"}
    multi_label: bool | None = None
    """Whether several labels may fit."""


class ZeroShotClassificationBody(TextBody):
    parameters: ZeroShotParameters | None = None


class FillMaskParameters(Parameters):
    names: ClassVar[Mapping[str, str]] = {"top_k": "top_k", "targets": "targets"}
    top_k: Count | None = None
    """How many tokens to give for each mask."""
    targets: Texts | None = None
    """Rank only these; each must be one token of the model."""

    def changes(self, limits: Limits) -> dict[str, Any]:
        at_most(self.given(), "top_k", limits.max_candidates)
        if len(self.targets or ()) > limits.max_candidates:
            raise BadParameter(f"may have at most {limits.max_candidates:,} words here", name="targets")
        return super().changes(limits)


class FillMaskBody(TextBody):
    parameters: FillMaskParameters | None = None
