"""Bodies of the tasks that compare texts: embeddings, similarity, ranking. Knows their fields, some of which are TEI's
(text-embeddings-inference) and stand beside `inputs`; not answers, not models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from hfray.serving.hf.call import Limits
from hfray.serving.hf.fields import BadParameter, Body, Count, Fields, Parameters, Texts
from hfray.serving.hf.texts import TextBody

_TRUNCATION: dict[str, tuple[Any, ...]] = {"truncate": (True,), "truncation_direction": ("right",)}
"""A text over the model's limit loses its end here, always: `truncate: false` asks for an error in place of that."""


class EmbeddingParameters(Parameters):
    names: ClassVar[Mapping[str, str]] = {"normalize": "normalize", "prompt_name": "prompt_name"}
    only: ClassVar[Mapping[str, tuple[Any, ...]]] = {**_TRUNCATION, "encoding_format": ("float",)}
    normalize: bool | None = None
    """Whether vectors are scaled to length 1; left out: as the model does."""
    prompt_name: Annotated[str, Field(max_length=256)] | None = None
    """A prompt stored with the model, put before each text."""
    truncate: bool | None = None
    """Longer texts than the model takes are cut."""
    truncation_direction: Literal["left", "right"] | None = None
    dimensions: Count | None = None
    """The length of the vectors; only that of the model is possible."""
    encoding_format: Literal["float", "base64"] | None = None

    def form(self) -> dict[str, Any]:
        return {} if self.dimensions is None else {"dimensions": self.dimensions}


class FeatureExtractionBody(TextBody, EmbeddingParameters):
    """Parameters stand beside `inputs`, as InferenceClient and TEI send them, or in `parameters`."""

    parameters: EmbeddingParameters | None = None

    def asked(self) -> tuple[Parameters, str]:
        given = {name: getattr(self, name) for name in EmbeddingParameters.model_fields}
        given = {name: value for name, value in given.items() if value is not None}
        if self.parameters is None:
            return EmbeddingParameters(**given), ""
        for name in given.keys() & self.parameters.given().keys():
            raise BadParameter("is given twice, also in parameters", name=name)
        return EmbeddingParameters(**given, **self.parameters.given()), "parameters."


class NoParameters(Parameters):
    """An object without any field."""


class Comparison(Fields):
    source_sentence: str
    sentences: Texts


class SentenceSimilarityBody(Body):
    inputs: Comparison
    """A text, and those that it is compared with."""
    parameters: NoParameters | None = None

    def rows(self, limits: Limits) -> tuple[list[dict[str, Any]], bool]:
        return [{"text": self.inputs.source_sentence, "text_pair": tuple(self.inputs.sentences)}], False


class RankingParameters(Parameters):
    only: ClassVar[Mapping[str, tuple[Any, ...]]] = _TRUNCATION
    raw_scores: bool | None = None
    """Whether scores are bare logits."""
    return_text: bool | None = None
    """Whether the answer repeats the texts."""
    truncate: bool | None = None
    """Longer texts than the model takes are cut."""
    truncation_direction: Literal["left", "right"] | None = None

    def changes(self, limits: Limits) -> dict[str, Any]:
        return {} if self.raw_scores is None else {"function": "none" if self.raw_scores else "auto"}

    def form(self) -> dict[str, Any]:
        return {"return_text": True} if self.return_text else {}


class TextRankingBody(Body, RankingParameters):
    """As TEI's /rerank."""

    query: str
    texts: Texts

    def rows(self, limits: Limits) -> tuple[list[dict[str, Any]], bool]:
        return [{"query": self.query, "text": tuple(self.texts)}], False

    def asked(self) -> tuple[Parameters, str]:
        given = {name: getattr(self, name) for name in RankingParameters.model_fields}
        return RankingParameters(**given), ""
