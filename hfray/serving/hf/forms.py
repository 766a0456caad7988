"""For each task: its body, the shape of its answer, how that is filled, and an example of each. Knows which belong
together; nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hfray.serving.hf import answers, generated, generation, images, shapes, texts, vectors
from hfray.serving.hf.fields import Body

_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
"""A PNG of one pixel."""


@dataclass(frozen=True, slots=True)
class Form:
    body: type[Body]
    answer: Any
    """The type of an answer."""
    render: answers.Render
    example: Mapping[str, Any]
    result: Any
    """What the task might give for the example's row: the example of an answer is rendered from it."""
    takes_image: bool = False
    """Whether a body may be an image itself."""


_LABELS = [{"label": "positive", "score": 0.98}, {"label": "negative", "score": 0.02}]
_TOPICS = [{"label": "travel", "score": 0.91}, {"label": "cooking", "score": 0.09}]
_Labels = list[shapes.Label] | list[list[shapes.Label]]
_Written = list[shapes.WrittenText] | list[list[shapes.WrittenText]]

FORMS: dict[str, Form] = {
    "text-classification": Form(
        texts.TextClassificationBody,
        list[list[shapes.Label]],
        answers.text_classes,
        {"inputs": "I love this film.", "parameters": {"top_k": 2}},
        _LABELS,
    ),
    "token-classification": Form(
        texts.TokenClassificationBody,
        list[shapes.Entity] | list[list[shapes.Entity]],
        answers.entities,
        {"inputs": "Ada Lovelace lived in London.", "parameters": {"aggregation_strategy": "simple"}},
        [
            {"entity": "PER", "score": 0.99, "word": "Ada Lovelace", "start": 0, "end": 12},
            {"entity": "LOC", "score": 0.98, "word": "London", "start": 22, "end": 28},
        ],
    ),
    "question-answering": Form(
        texts.QuestionAnsweringBody,
        shapes.Answer | list[shapes.Answer] | list[list[shapes.Answer]],
        answers.spans,
        {"inputs": {"question": "Where did Ada live?", "context": "Ada Lovelace lived in London."}},
        [{"answer": "London", "score": 0.97, "start": 22, "end": 28}],
    ),
    "zero-shot-classification": Form(
        texts.ZeroShotClassificationBody,
        _Labels,
        answers.classes,
        {"inputs": "We take the train to Rome.", "parameters": {"candidate_labels": ["travel", "cooking"]}},
        _TOPICS,
    ),
    "fill-mask": Form(
        texts.FillMaskBody,
        list[shapes.MaskToken] | list[list[shapes.MaskToken] | list[list[shapes.MaskToken]]],
        answers.masks,
        {"inputs": "Paris is the capital of [MASK].", "parameters": {"top_k": 1}},
        [[{"token": 2605, "token_str": "france", "score": 0.99, "sequence": "paris is the capital of france."}]],
    ),
    "feature-extraction": Form(
        vectors.FeatureExtractionBody,
        list[list[float]] | list[list[list[float]]],
        answers.vectors,
        {"inputs": ["A first text.", "Another one."], "normalize": True},
        [0.6, -0.8],
    ),
    "sentence-similarity": Form(
        vectors.SentenceSimilarityBody,
        list[float],
        answers.similarities,
        {"inputs": {"source_sentence": "A cat sleeps.", "sentences": ["A kitten naps.", "It rains."]}},
        [0.83, 0.12],
    ),
    "text-ranking": Form(
        vectors.TextRankingBody,
        list[shapes.Rank],
        answers.ranks,
        {"query": "What is a cat?", "texts": ["It rains.", "A small animal."], "return_text": True},
        [{"index": 1, "score": 0.96}, {"index": 0, "score": 0.01}],
    ),
    "summarization": Form(
        generation.SummarizationBody,
        list[shapes.Summary] | list[list[shapes.Summary]],
        answers.written("summary_text"),
        {"inputs": "A long text ...", "parameters": {"generate_parameters": {"max_new_tokens": 60}}},
        "A short one.",
    ),
    "translation": Form(
        generation.TranslationBody,
        list[shapes.TranslatedText] | list[list[shapes.TranslatedText]],
        answers.written("translation_text"),
        {"inputs": "Good morning!", "parameters": {"src_lang": "en_XX", "tgt_lang": "fr_XX"}},
        "Bonjour !",
    ),
    "text2text-generation": Form(
        generation.Text2TextBody,
        _Written,
        answers.written("generated_text"),
        {"inputs": "Is 7 a prime number?", "parameters": {"max_new_tokens": 8}},
        "Yes.",
    ),
    "text-generation": Form(
        generation.TextGenerationBody,
        list[shapes.GeneratedText] | list[list[shapes.GeneratedText]],
        generated.texts,
        {"inputs": "Once upon a time", "parameters": {"max_new_tokens": 20, "temperature": 0.7, "details": True}},
        {
            "text": " there was",
            "finish": "length",
            "completion_tokens": 2,
            "logprobs": [
                {"id": 612, "token": " there", "logprob": -0.2, "top": []},
                {"id": 373, "token": " was", "logprob": -0.1, "top": []},
            ],
        },
    ),
    "perplexity": Form(
        texts.PerplexityBody,
        shapes.Foreseen | list[shapes.Foreseen],
        answers.foreseen,
        {"inputs": "The cat sat on the mat."},
        {"loss": 3.2, "perplexity": 24.5, "tokens": 7},
    ),
    "image-classification": Form(
        images.ImageClassificationBody,
        _Labels,
        answers.classes,
        {"inputs": _PIXEL, "parameters": {"top_k": 2}},
        [{"label": "cat", "score": 0.9}, {"label": "dog", "score": 0.1}],
        takes_image=True,
    ),
    "zero-shot-image-classification": Form(
        images.ZeroShotImageClassificationBody,
        _Labels,
        answers.classes,
        {"inputs": _PIXEL, "parameters": {"candidate_labels": ["travel", "cooking"]}},
        _TOPICS,
        takes_image=True,
    ),
}
