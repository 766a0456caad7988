"""feature-extraction: a text to its embedding. Knows pooling options; not how vectors are computed or compared.

A sentence-transformers folder's own pooling, normalisation and prompts are the defaults, so that the vectors are
those of `SentenceTransformer.encode`; a plain model gets mean pooling, unnormalised.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hfray.errors import RowError
from hfray.tasks.base import ModelInfo, Processor, Task
from hfray.tasks.embedding import PromptOptions, TextEmbedder
from hfray.tasks.text import text_of
from hfray.types import Array, Encoded, Output, Result, Row

if TYPE_CHECKING:
    import pyarrow as pa


class FeatureExtraction(Task):
    name: ClassVar[str] = "feature-extraction"
    summary: ClassVar[str] = "embedding of a text"
    mode: ClassVar[Literal["forward", "generate"]] = "forward"
    auto_model: ClassVar[str] = "AutoModel"
    columns: ClassVar[tuple[str, ...]] = ("text",)

    class Options(PromptOptions):
        name: Literal["feature-extraction"] = "feature-extraction"
        pooling: Literal["auto", "mean", "cls", "max", "last", "none"] = "auto"
        """Token vectors to one vector; auto: the model's own sentence-transformers pooling, else mean; none keeps one
        vector per token, special tokens included."""
        normalize: bool | Literal["auto"] = "auto"
        """Whether vectors are scaled to length 1; auto: as the model's own sentence-transformers modules do, else no
        (and no for the vectors of tokens)."""

    def __init__(self, options: Any, processor: Processor, model_info: ModelInfo) -> None:
        super().__init__(options, processor, model_info)
        self._embedder = TextEmbedder(processor, model_info)
        self._prompt = self._embedder.prompt(options)

    def encode(self, rows: Sequence[Row], options: Any = None) -> list[Encoded | RowError]:
        prompt = self._prompt if options is None else self._embedder.prompt(options)
        options = options or self.options
        encoded: list[Encoded | RowError] = []
        texts: list[str] = []
        for row in rows:
            try:
                texts.append(text_of(row, "text", options))
                encoded.append(Encoded(()))
            except RowError as error:
                encoded.append(error)
        mode = self._embedder.pooling(options.pooling)
        own = bool(self.model_info.normalize) and mode != "none"
        normalize = own if options.normalize == "auto" else options.normalize
        embedded = iter(self._embedder.encode(texts, options, prompt, mode=mode, normalize=normalize))
        return [each if isinstance(each, RowError) else next(embedded) for each in encoded]

    def decode(self, outputs: Sequence[Output], carry: Any) -> Result:
        embedding: Array = outputs[0]["embedding"]
        return embedding.tolist()

    def result_type(self) -> pa.DataType:
        """list<float> [dim]; with pooling none list<list<float>> [num_tokens, dim]."""
        import pyarrow as pa

        vector = pa.list_(pa.float32())
        return pa.list_(vector) if self.options.pooling == "none" else vector
