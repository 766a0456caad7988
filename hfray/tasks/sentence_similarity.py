"""sentence-similarity: cosine of a text with one text or several, by embeddings. Knows pairs; not pooling itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from hfray.errors import DataError, RowError
from hfray.tasks.base import ModelInfo, Processor, Summary, Task
from hfray.tasks.classification import correlation_metrics
from hfray.tasks.embedding import PromptOptions, TextEmbedder
from hfray.tasks.text import text_of, texts_of
from hfray.types import Encoded, Item, Output, Result, Row

if TYPE_CHECKING:
    import pyarrow as pa


class SentenceSimilarity(Task):
    name: ClassVar[str] = "sentence-similarity"
    summary: ClassVar[str] = "cosine similarity of a text with one or several others"
    mode: ClassVar[Literal["forward", "generate"]] = "forward"
    auto_model: ClassVar[str] = "AutoModel"
    columns: ClassVar[tuple[str, ...]] = ("text", "text_pair")
    metric_names = ("pearson", "spearman")

    class Options(PromptOptions):
        name: Literal["sentence-similarity"] = "sentence-similarity"
        pooling: Literal["auto", "mean", "cls", "max", "last"] = "auto"
        """Token vectors to one vector; auto: the model's own sentence-transformers pooling, else mean."""

    def __init__(self, options: Any, processor: Processor, model_info: ModelInfo) -> None:
        super().__init__(options, processor, model_info)
        self._embedder = TextEmbedder(processor, model_info)
        self._prompt = self._embedder.prompt(options)

    def encode(self, rows: Sequence[Row], options: Any = None) -> list[Encoded | RowError]:
        prompt = self._prompt if options is None else self._embedder.prompt(options)
        options = options or self.options
        read: list[list[str] | RowError] = []
        for row in rows:
            try:
                first = text_of(row, "text", options)
                read.append([first, *texts_of(row, "text_pair", options)])
            except RowError as error:
                read.append(error)
        texts = [text for each in read if not isinstance(each, RowError) for text in each]
        mode = self._embedder.pooling(options.pooling)
        embedded = self._embedder.encode(texts, options, prompt, mode=mode, normalize=True)
        start = 0
        encoded: list[Encoded | RowError] = []
        for each in read:
            if isinstance(each, RowError):
                encoded.append(each)
            else:
                encoded.append(_together(embedded[start : start + len(each)]))
                start += len(each)
        return encoded

    def decode(self, outputs: Sequence[Output], carry: Any) -> Result:
        vectors = np.stack([output["embedding"] for output in outputs]).astype(np.float32)
        # Rounding may carry a product of unit vectors past 1, or past -1.
        return np.clip(vectors[1:] @ vectors[0], -1.0, 1.0).tolist()

    def result_type(self) -> pa.DataType:
        """list<float>: one cosine per text of `text_pair`, in its order."""
        import pyarrow as pa

        return pa.list_(pa.float32())

    def summarize(self, result: Result) -> Summary:
        return Summary(score=result[0])

    def metrics(self, results: Sequence[Result], references: Sequence[Any]) -> dict[str, float]:
        """pearson and spearman against a number per row. Raises DataError for another reference, and for rows that
        compare more than one text."""
        for position, result in enumerate(results):
            if len(result) != 1:
                raise DataError(
                    f"row {position} compares {len(result)} texts; metrics need one text in text_pair per row"
                )
        return correlation_metrics([result[0] for result in results], references)


def _together(texts: Sequence[Encoded | RowError]) -> Encoded | RowError:
    items: list[Item] = []
    truncated = False
    for each in texts:
        if isinstance(each, RowError):
            return each
        items += each.items
        truncated |= each.truncated
    return Encoded(tuple(items), truncated=truncated)
