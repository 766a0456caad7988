"""image-classification against Transformers' own pipeline, with real photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from transformers import ViTConfig, ViTImageProcessorPil, pipeline

from hfray.errors import DataError, RowError, SpecError
from hfray.tasks.base import Processor
from hfray.tasks.image_classification import ImageClassification
from tests.tasks.support import answer, info_of, tiny_model

LABELS = ("cat", "coffee", "horse", "galaxy", "camera", "astronaut", "other")
PHOTOS = ("chelsea.png", "coffee.png", "horse.png", "hubble_deep_field.jpg", "camera.png", "astronaut.png")


def vit(labels: tuple[str, ...] = LABELS, **changes: Any) -> Any:
    config = ViTConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=64,
        patch_size=16,
        initializer_range=0.3,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        **changes,
    )
    return tiny_model(ImageClassification.auto_model, config)


def make(model: Any, **options: Any) -> ImageClassification:
    processor = Processor(image_processor=ViTImageProcessorPil(size={"height": 64, "width": 64}))
    return ImageClassification(ImageClassification.Options(**options), processor, info_of(model))


@pytest.fixture(scope="module")
def model() -> Any:
    return vit()


@pytest.fixture(scope="module")
def photos(shared_data: Path) -> list[Path]:
    return [shared_data / "photos" / name for name in PHOTOS]


def rows_of(photos: list[Path]) -> list[dict[str, Any]]:
    return [{"image": path.read_bytes()} for path in photos]


@pytest.mark.parametrize("top_k", [1, 5, 99])
@pytest.mark.parametrize("function", ["auto", "softmax", "sigmoid", "none"])
def test_photos_equal_the_pipeline(model: Any, photos: list[Path], function: str, top_k: int) -> None:
    task = make(model, function=function, top_k=top_k)
    own = pipeline("image-classification", model=model, image_processor=task.processor.image_processor)
    options = {} if function == "auto" else {"function_to_apply": function}
    for path, found in zip(photos, answer(task, model, rows_of(photos)), strict=True):
        wanted = own(Image.open(path), top_k=top_k, **options)
        assert [each["label"] for each in found] == [each["label"] for each in wanted]
        assert [each["score"] for each in found] == pytest.approx([each["score"] for each in wanted], abs=1e-5)


@pytest.mark.parametrize(
    ("labels", "problem", "function"),
    [
        (LABELS, None, "softmax"),
        (LABELS, "single_label_classification", "softmax"),
        (LABELS, "multi_label_classification", "sigmoid"),
        (("beauty",), None, "sigmoid"),
        (("beauty",), "regression", "none"),
    ],
)
def test_auto_follows_the_problem_type(
    photos: list[Path], labels: tuple[str, ...], problem: Any, function: str
) -> None:
    model = vit(labels, problem_type=problem)
    rows = rows_of(photos[:2])
    assert answer(make(model), model, rows) == answer(make(model, function=function), model, rows)
    own = pipeline("image-classification", model=model, image_processor=make(model).processor.image_processor)
    found = answer(make(model), model, rows)[0]
    assert found[0]["score"] == pytest.approx(own(Image.open(photos[0]))[0]["score"], abs=1e-5)


def test_labels_can_be_renamed(model: Any, photos: list[Path]) -> None:
    names = [label.upper() for label in LABELS]
    plain, renamed = (answer(make(model, **options), model, rows_of(photos)) for options in ({}, {"labels": names}))
    assert [[each["label"].upper() for each in result] for result in plain] == [
        [each["label"] for each in result] for result in renamed
    ]
    with pytest.raises(SpecError, match="has 1 names, but model tiny has 7"):
        make(model, labels=["x"])


def test_bad_rows_stand_alone(model: Any, photos: list[Path]) -> None:
    rows = [*rows_of(photos[:1]), {"image": b"\x89PNG broken"}, {"image": None}, {}, *rows_of(photos[1:2])]
    found = answer(make(model), model, rows)
    assert [each.type if isinstance(each, RowError) else "ok" for each in found] == [
        "ok",
        "BrokenImage",
        "NullImage",
        "MissingColumn",
        "ok",
    ]


def test_options_of_a_request_replace_those_of_the_job(model: Any, photos: list[Path]) -> None:
    other = make(model, top_k=1, function="sigmoid")
    assert answer(make(model), model, rows_of(photos), other.options) == answer(other, model, rows_of(photos))
    small = make(model, max_pixels=1000).options
    assert [each.type for each in answer(make(model), model, rows_of(photos), small)] == ["ImageTooLarge"] * 6


def test_items_are_images(model: Any, photos: list[Path]) -> None:
    (encoded,) = make(model).encode([{"image": {"bytes": photos[0].read_bytes(), "path": "nowhere.png"}}])
    assert not isinstance(encoded, RowError)
    (item,) = encoded.items
    assert item.kind == "image"
    assert item.inputs["pixel_values"].shape == (3, 64, 64)
    assert item.inputs["pixel_values"].dtype == np.float32


def test_results_fit_their_type(model: Any, photos: list[Path]) -> None:
    task = make(model, top_k="all")
    results = answer(task, model, rows_of(photos))
    assert len(pa.array(results, task.result_type())) == 6
    assert len(results[0]) == 7
    assert task.summarize(results[0]).label == results[0][0]["label"]


def test_metrics_compare_the_best_label(model: Any, photos: list[Path]) -> None:
    task = make(model)
    results = answer(task, model, rows_of(photos))
    best = [result[0]["label"] for result in results]
    assert task.metrics(results, best) == {"accuracy": 1.0, "macro_f1": 1.0}
    assert task.metrics(results, [LABELS.index(label) for label in best])["accuracy"] == 1.0
    with pytest.raises(DataError, match="zebra"):
        task.metrics(results, ["zebra"] * 6)
    several = make(model, function="sigmoid", top_k="all")
    results = answer(several, model, rows_of(photos))
    above = [[each["label"] for each in result if each["score"] > 0.5] for result in results]
    assert several.metrics(results, above)["subset_accuracy"] == 1.0
    with pytest.raises(SpecError, match="top_k: all"):
        make(model, function="sigmoid").metrics(results, above)
    with pytest.raises(SpecError, match="numbers"):
        make(model, function="none").metrics(results, best)


def test_a_model_without_an_image_processor_is_refused(model: Any) -> None:
    with pytest.raises(SpecError, match="no image processor"):
        ImageClassification(ImageClassification.Options(), Processor(), info_of(model))
