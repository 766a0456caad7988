"""zero-shot-image-classification against Transformers' own pipeline, with real photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    SiglipConfig,
    SiglipImageProcessorPil,
    pipeline,
)

from hfray.errors import EngineError, RowError, SpecError
from hfray.tasks.base import Processor
from hfray.tasks.zero_shot_image_classification import ZeroShotImageClassification
from hfray.types import Item
from tests.tasks.support import answer, info_of, run_items, stored_tokenizer, tiny_model, truncated

LABELS = ("a cat", "coffee", "horses on a meadow", "the sky at night", "今天", "A CAMERA")
PHOTOS = ("chelsea.png", "coffee.png", "horse.png", "hubble_deep_field.jpg")

SIZE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
VISION = {**SIZE, "image_size": 64, "patch_size": 16}


class Subject:
    """A tiny model with what belongs to it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        if kind == "clip":
            self.tokenizer = stored_tokenizer(
                "clip", pad_token="<|endoftext|>", eos_token="<|endoftext|>", model_max_length=77
            )
            text = {**SIZE, "vocab_size": 49408, "eos_token_id": 49407, "bos_token_id": 49406, "pad_token_id": 49407}
            config: Any = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=32)
            self.image_processor: Any = CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size=64)
        else:
            # As the tokenizers of published SigLIP models: no attention mask.
            self.tokenizer = stored_tokenizer(
                "t5-small", pad_token="</s>", eos_token="</s>", model_input_names=["input_ids"], model_max_length=64
            )
            config = SiglipConfig(text_config={**SIZE, "vocab_size": 32128}, vision_config=VISION)
            self.image_processor = SiglipImageProcessorPil(size={"height": 64, "width": 64})
        self.model: Any = tiny_model("AutoModel", config)
        with torch.no_grad():  # far from zero, so that scores differ
            self.model.logit_scale.fill_(2.5)
            if kind == "siglip":
                self.model.logit_bias.fill_(-1.5)
        self.info = info_of(self.model, max_length=config.text_config.max_position_embeddings, labels=())

    def task(self, **options: Any) -> ZeroShotImageClassification:
        options.setdefault("candidate_labels", LABELS)
        processor = Processor(self.tokenizer, self.image_processor)
        return ZeroShotImageClassification(ZeroShotImageClassification.Options(**options), processor, self.info)

    def pipeline(self) -> Any:
        return pipeline(
            "zero-shot-image-classification",
            model=self.model,
            tokenizer=self.tokenizer,
            image_processor=self.image_processor,
        )


@pytest.fixture(scope="module", params=["clip", "siglip"])
def subject(request: pytest.FixtureRequest) -> Subject:
    return Subject(request.param)


@pytest.fixture(scope="module")
def clip() -> Subject:
    return Subject("clip")


@pytest.fixture(scope="module")
def photos(shared_data: Path) -> list[Path]:
    return [shared_data / "photos" / name for name in PHOTOS]


def rows_of(photos: list[Path]) -> list[dict[str, Any]]:
    return [{"image": path.read_bytes()} for path in photos]


def assert_same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert [each["label"] for each in found] == [each["label"] for each in wanted]
    assert [each["score"] for each in found] == pytest.approx([each["score"] for each in wanted], abs=1e-5)


@pytest.mark.parametrize("template", ["This is a photo of {}.", "{}", "{}, nothing but {}"])
def test_photos_equal_the_pipeline(subject: Subject, photos: list[Path], template: str) -> None:
    found = answer(subject.task(hypothesis_template=template), subject.model, rows_of(photos))
    own = subject.pipeline()
    own_template = template.replace("{}", "{0}")
    for path, result in zip(photos, found, strict=True):
        assert_same(result, own(Image.open(path), candidate_labels=list(LABELS), hypothesis_template=own_template))
    assert len({round(each["score"], 4) for each in found[0]}) > 1


def test_labels_of_a_row_go_first(subject: Subject, photos: list[Path]) -> None:
    rows = rows_of(photos[:3])
    rows[0]["candidate_labels"] = ["a dog", "a cat"]
    rows[1]["candidate_labels"] = "tea, coffee ,a cat"
    rows[2]["candidate_labels"] = None
    found = answer(subject.task(), subject.model, rows)
    own = subject.pipeline()
    for path, result, labels in zip(
        photos, found, (["a dog", "a cat"], ["tea", "coffee", "a cat"], LABELS), strict=False
    ):
        assert_same(result, own(Image.open(path), candidate_labels=list(labels)))


@pytest.mark.slow
def test_only_the_jobs_labels_stay_with_the_engine(clip: Subject, photos: list[Path]) -> None:
    row = rows_of(photos[:1])[0] | {"candidate_labels": ["a cat", "a dog"]}
    (encoded,) = clip.task().encode([row])
    assert not isinstance(encoded, RowError)
    assert [(item.kind, item.reuse) for item in encoded.items] == [
        ("image", "batch"),
        ("text", "job"),
        ("text", "batch"),
    ]
    request = clip.task(candidate_labels=["a bird"], hypothesis_template="{}").options
    (encoded,) = clip.task().encode(rows_of(photos[:1]), request)
    assert not isinstance(encoded, RowError)
    assert [item.reuse for item in encoded.items[1:]] == ["batch"]


def test_label_items_are_made_once(clip: Subject, photos: list[Path]) -> None:
    first, second = clip.task().encode(rows_of(photos[:2]))
    assert not isinstance(first, RowError)
    assert not isinstance(second, RowError)
    assert [id(item) for item in first.items[1:]] == [id(item) for item in second.items[1:]]


@pytest.mark.slow
def test_siglip_texts_are_padded_on_the_tokenizers_side(photos: list[Path]) -> None:
    siglip = Subject("siglip")
    short = siglip.task(candidate_labels=["cat"])
    long = siglip.task(candidate_labels=["cat " * 100])
    assert [ids_of(task, photos).shape for task in (short, long)] == [(64,), (64,)]
    assert ids_of(short, photos)[-1] == siglip.tokenizer.pad_token_id
    siglip.tokenizer.padding_side = "left"
    own = siglip.pipeline()
    task = siglip.task()
    assert ids_of(task, photos)[0] == siglip.tokenizer.pad_token_id
    (found,) = answer(task, siglip.model, rows_of(photos[:1]))
    assert_same(found, own(Image.open(photos[0]), candidate_labels=list(LABELS)))


def test_long_labels_are_cut(clip: Subject, photos: list[Path]) -> None:
    assert len(ids_of(clip.task(candidate_labels=["cat " * 100]), photos)) == 77
    assert len(ids_of(clip.task(candidate_labels=["cat " * 100], max_length=20), photos)) == 20


def test_bad_rows_stand_alone(clip: Subject, photos: list[Path]) -> None:
    good = rows_of(photos[:1])[0]
    rows = [
        good,
        {"image": b"GIF89a"},
        {},
        good | {"candidate_labels": []},
        good | {"candidate_labels": ["a", "a"]},
        good | {"candidate_labels": ["a", None]},
        good | {"candidate_labels": 3},
        good,
    ]
    found = answer(clip.task(), clip.model, rows)
    assert [each.type if isinstance(each, RowError) else "ok" for each in found] == [
        "ok",
        "BrokenImage",
        "MissingColumn",
        "NoLabels",
        "RepeatedLabel",
        "NullText",
        "WrongType",
        "ok",
    ]


def test_without_any_labels_the_row_says_so(clip: Subject, photos: list[Path]) -> None:
    (found,) = answer(clip.task(candidate_labels=[]), clip.model, rows_of(photos[:1]))
    assert isinstance(found, RowError)
    assert found.type == "NoLabels"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hypothesis_template": "a photo"}, "has no {}"),
        ({"candidate_labels": ["a", "a"]}, "twice"),
        ({"candidate_labels": ["a", " "]}, "empty"),
    ],
)
def test_wrong_options_are_refused(clip: Subject, photos: list[Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        clip.task(**options)
    request = ZeroShotImageClassification.Options(**options)
    with pytest.raises(SpecError, match=message):
        clip.task().encode(rows_of(photos), request)


def test_a_template_formats_nothing_else(clip: Subject, photos: list[Path]) -> None:
    task = clip.task(candidate_labels=["cat"], hypothesis_template="{} {0.__class__} {:>99999999}")
    assert len(ids_of(task, photos)) < 40


@pytest.mark.slow
def test_options_of_a_request_replace_those_of_the_job(clip: Subject, photos: list[Path]) -> None:
    other = clip.task(candidate_labels=["tea", "coffee"], hypothesis_template="{}", max_length=5)
    assert answer(clip.task(), clip.model, rows_of(photos), other.options) == answer(other, clip.model, rows_of(photos))


def test_results_fit_their_type(clip: Subject, photos: list[Path]) -> None:
    task = clip.task()
    results = answer(task, clip.model, rows_of(photos))
    assert len(pa.array(results, task.result_type())) == 4
    assert sum(each["score"] for each in results[0]) == pytest.approx(1)
    assert task.summarize(results[0]).score == results[0][0]["score"]
    best = [result[0]["label"] for result in results]
    assert task.metrics(results, best)["accuracy"] == 1.0
    assert task.metrics(results, [LABELS.index(label) for label in best])["accuracy"] == 1.0


def test_a_model_without_its_parts_is_refused(clip: Subject, photos: list[Path]) -> None:
    with pytest.raises(SpecError, match="CLIP or SigLIP"):
        ZeroShotImageClassification(
            ZeroShotImageClassification.Options(), Processor(tokenizer=clip.tokenizer), clip.info
        )
    processor = Processor(clip.tokenizer, clip.image_processor)
    options = ZeroShotImageClassification.Options(candidate_labels=("a", "b"))
    task = ZeroShotImageClassification(options, processor, info_of(clip.model, logit_scale=None, labels=()))
    (encoded,) = task.encode(rows_of(photos[:1]))
    assert not isinstance(encoded, RowError)
    with pytest.raises(EngineError, match="logit_scale"):
        task.decode(run_items(clip.model, encoded.items), encoded.carry)


def ids_of(task: ZeroShotImageClassification, photos: list[Path]) -> np.ndarray[Any, Any]:
    (encoded,) = task.encode(rows_of(photos[:1]))
    assert not isinstance(encoded, RowError)
    item: Item = encoded.items[1]
    return item.inputs["input_ids"]


@pytest.mark.slow
def test_rows_that_lose_text_are_known(subject: Subject, photos: list[Path]) -> None:
    def label_of(num_tokens: int) -> str:
        text, special = "", len(subject.tokenizer("").input_ids)
        while len(subject.tokenizer(text).input_ids) < num_tokens:
            text += " cat"
        assert len(subject.tokenizer(text).input_ids) == num_tokens > special
        return text.strip()

    limit = 77 if subject.kind == "clip" else 64
    labels = [label_of(num) for num in (limit, limit + 1)]
    (row,) = rows_of(photos[:1])
    assert truncated(subject.task(hypothesis_template="{}", candidate_labels=labels[:1]), row) == [False]
    assert truncated(subject.task(hypothesis_template="{}", candidate_labels=labels), row) == [True]
    rows = [row | {"candidate_labels": ["a cat", "x" * num]} for num in (20, 21)]
    task = subject.task(max_chars=20, over_max_chars="truncate")
    assert truncated(task, *rows) == [False, True]
