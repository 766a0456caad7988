"""Training jobs from their file to the finished folder, with real workers that talk over gloo and without Ray: what is
learned, what is left, and what happens when the workers die."""

from __future__ import annotations

import asyncio
import io
import json
import math
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file
from tokenizers import normalizers
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hfray.engines.batch import BatchEngine
from hfray.errors import EngineError, HfrayError, SpecError
from hfray.inference.predictor import Predictor
from hfray.kinds.progress import Progress
from hfray.kinds.report import Report
from hfray.kinds.tokenize import TokenizeRun
from hfray.models.load import load_model
from hfray.serving.messages import Ask
from hfray.spec.sections import ModelSpec
from hfray.spec.tokenize import TokenizeJob
from hfray.tasks import TASKS
from hfray.training.cadence import SETTLED
from tests.kinds.train_office import TrainOffice
from tests.models.support import letter_tokenizer, save_decoder, save_model
from tests.serving.office import replica_of

pytestmark = pytest.mark.slow

CLASSES = ("cold", "warm")
_dice = random.Random(0)
TEXTS = ["".join(_dice.choice("abc ") for _ in range(_dice.randint(4, 30))) + "zx"[i % 3 > 0] for i in range(64)]
LABELS = [CLASSES[i % 3 > 0] for i in range(64)]
TRAINER = {"max_steps": 6, "per_device_train_batch_size": 2, "learning_rate": 1e-3, "logging_steps": 1}
CLASSIFY = {"name": "text-classification"}


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainOffice:
    made = TrainOffice(tmp_path, monkeypatch)
    made.write("train.parquet", text=TEXTS, label=LABELS)
    made.write("dev.parquet", text=TEXTS[:21], label=LABELS[:21])
    save_model(tmp_path / "model", labels=("LABEL_0", "LABEL_1"))
    letter_tokenizer(256).save_pretrained(tmp_path / "tokenizer")
    return made


def classifier(office: TrainOffice, trainer: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "model": {"path": str(office.folder / "model")},
        "task": CLASSIFY,
        "input": {part: str(office.folder / f"{name}.parquet") for part, name in PARTS.items()},
        "trainer": TRAINER | (trainer or {}),
        **changes,
    }


PARTS = {"train": "train", "validation": "dev"}
OWN = {
    "zero_optimization": {"stage": 1},
    "optimizer": {"type": "AdamW", "params": {"torch_adam": True, "weight_decay": 0.1}},
    "scheduler": {"type": "WarmupDecayLR", "params": {"warmup_num_steps": 2, "total_num_steps": 8}},
}
"""An author's own DeepSpeed configuration, whose optimizer and schedule are DeepSpeed's."""


def loss_by_hand(folder: Path, texts: list[str], labels: list[str], smoothing: float = 0.0) -> float:
    """Of a classifier in a folder, one text at a time."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        logits = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])
    classes = torch.tensor([CLASSES.index(each) for each in labels])
    return float(torch.nn.functional.cross_entropy(logits, classes, label_smoothing=smoothing))


def offloaded(stage: int) -> dict[str, Any]:
    """What DeepSpeed needs to be told to keep everything in the host's memory."""
    away = {"device": "cpu"}
    return {
        "zero_optimization": {
            "stage": stage,
            "offload_optimizer": away,
            **({"offload_param": away} if stage == 3 else {}),
        }
    }


def losses(report: Report) -> list[float | None]:
    assert report.training is not None
    return [point.loss for point in report.training.points]


# -- what is learned


def test_a_tuned_model_scores_as_its_last_evaluation_said(office: TrainOffice) -> None:
    best = {
        "load_best_model_at_end": True, "metric_for_best_model": "accuracy", "eval_strategy": "steps", "eval_steps": 2,
    }  # fmt: skip
    variants: tuple[tuple[dict[str, Any], dict[str, Any], int], ...] = (
        ({"name": "full"}, {}, 0),
        ({"name": "lora"}, {}, 0),
        ({"name": "qlora"}, {}, 0),
        ({"name": "lora", "rslora": True, "dora": True}, best, 3),
    )
    for method, trainer, stage in variants:
        report = office.run(restart=True, **classifier(office, trainer, method=method, deepspeed=stage))
        assert report.status == "complete"
        assert report.training is not None
        if trainer:
            # Steps may be equally good, their losses are not: it is the first of the best that is there.
            first = max(report.training.evaluations, key=lambda each: each.metrics["accuracy"] or 0.0)
            assert report.training.best_step == first.step
            assert report.metrics == first.metrics
            assert len({each.metrics["loss"] for each in report.training.evaluations}) == 3
        facts = office.facts
        assert facts["labels"] == list(CLASSES)
        assert facts["metrics"] == report.metrics
        assert facts["base"]["path"] == str(office.folder / "model")
        assert facts["method"].items() >= method.items()
        assert all(len(facts[name]) == 64 for name in ("tokenizer_fingerprint", "data_fingerprint"))
        assert yaml.safe_load(facts["spec"])["global_batch_size"] == 8
        rows = [{"text": text} for text in TEXTS[:21]]
        task_class = TASKS["text-classification"]
        rounded = {"quantization": "nf4", "double_quantization": True} if method["name"] == "qlora" else {}
        scored_model = {"path": str(office.out), "dtype": "float32", **rounded}
        loaded = load_model(ModelSpec.model_validate(scored_model), task_class)
        engine = BatchEngine(loaded)
        task = task_class(task_class.Options(name="text-classification"), loaded.processor, loaded.info)
        results = Predictor(task, engine).predict(rows)
        engine.close()
        replica, _ = replica_of(office.out, "text-classification", model=scored_model)  # as an endpoint loads it
        (reply,) = asyncio.run(replica.predict([Ask(tuple(rows))]))
        replica.close()
        labels = [[[entry["label"] for entry in each] for each in found] for found in (reply.results, results)]
        assert labels[0] == labels[1]
        scored = task.metrics(results, LABELS[:21])
        assert scored == {name: report.metrics[name] for name in scored}
        assert (office.out / "training_curve.svg").is_file()
        assert len(list((office.out / "runs").glob("events.out.tfevents.*"))) == 1
        assert "![training curve](training_curve.svg)" in (office.out / "README.md").read_text()


def test_losses_are_those_of_the_whole_batch_whatever_the_stage_and_the_workers(office: TrainOffice) -> None:
    save_model(office.folder / "still", labels=CLASSES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    still = {"model": {"path": str(office.folder / "still")}}
    runs: dict[str, list[float | None]] = {}
    for name, method, stage, workers, micro in (
        ("full, alone", "full", 0, 1, 2),
        ("full, alone, all at once", "full", 1, 1, 8),
        ("full, two", "full", 2, 2, 2),
        ("full, two, divided", "full", 3, 2, 4),
        ("full, two, offloaded", "full", offloaded(2), 2, 2),
        ("full, two, divided and offloaded", "full", offloaded(3), 2, 2),
        ("lora, alone", "lora", 0, 1, 2),
        ("lora, two, divided", "lora", 3, 2, 2),
        ("qlora, two", "qlora", 1, 2, 2),
        ("qlora, two, divided", "qlora", 3, 2, 2),
    ):
        office.world_size = workers
        changes = still | {"method": {"name": method, "dropout": 0.0} if method != "full" else "full"}
        trainer = {"per_device_train_batch_size": micro, "max_steps": 4}
        runs[name] = losses(
            office.run(
                restart=True, **classifier(office, trainer, **changes, deepspeed=stage, workers={"min": workers})
            )
        )
    for name, found in runs.items():
        method = name.partition(",")[0]
        first = next(each for other, each in runs.items() if other.startswith(method))
        assert found == pytest.approx(first, abs=1e-4), name
        assert found[0] != found[1]


@pytest.mark.chaos
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_a_method_learns_alike_at_every_stage(office: TrainOffice, method: str) -> None:
    tuned = "full" if method == "full" else {"name": method, "dropout": 0.0}
    trainer = {"max_steps": 20}
    found = {
        stage: losses(office.run(restart=True, **classifier(office, trainer, method=tuned, deepspeed=stage)))
        for stage in range(4)
    }
    apart = {
        stage: max(abs(one - other) for one, other in zip(each, found[0], strict=True)) for stage, each in found.items()
    }
    print(f"{method}, 20 steps: {found[0][0]:.4f} to {found[0][-1]:.4f}; largest difference from ZeRO-0: {apart}")
    assert max(apart.values()) < 1e-3
    assert found[0][0] != found[0][-1]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_divided_weights_and_fewer_rows_than_workers_are_evaluated(office: TrainOffice, method: str) -> None:
    office.write("one.parquet", text=TEXTS[:1], label=LABELS[:1])
    parts = {part: str(office.folder / f"{name}.parquet") for part, name in (("train", "train"), ("validation", "one"))}
    report = office.run(**classifier(office, {"max_steps": 1}, input=parts, method=method, deepspeed=3))
    assert {"loss", "accuracy"} <= set(report.metrics)


def test_every_head_learns(office: TrainOffice) -> None:
    tiny = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    words = [text.split() or ["a"] for text in TEXTS]
    tags = [["B-X" if "x" in word else "O" for word in each] for each in words]
    contexts = [f"the cat sat on a mat {i}" for i in range(40)]
    office.write("tags.parquet", text=words, tags=tags)
    office.write("numbers.parquet", text=TEXTS, label=[len(text) / 10 + 0.05 for text in TEXTS])
    office.write("several.parquet", text=TEXTS, label=[[c for c in "abc" if c in text] for text in TEXTS])
    office.write("targets.parquet", text=TEXTS, target=[text[:6] for text in TEXTS])
    answers = [{"text": ["cat"], "answer_start": [4]}] * 40
    office.write("answers.parquet", question=["what sat?"] * 40, context=contexts, answers=answers)
    for head in ("TokenClassification", "QuestionAnswering"):
        save_model(office.folder / head, f"AutoModelFor{head}", labels=("a", "b", "c"))
    llama = {"config": {"model_type": "llama", "num_key_value_heads": 2, "max_position_embeddings": 128, **tiny}}
    bert = {"config": {"model_type": "bert", "max_position_embeddings": 128, **tiny}}
    t5 = {"model_type": "t5", "d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 2, "d_kv": 16}
    office.write("pairs.parquet", text=TEXTS, text_pair=[text[::-1] for text in TEXTS], label=LABELS)
    office.write("ranks.parquet", text=TEXTS, text_pair=[text[::-1] for text in TEXTS], label=["x" in t for t in TEXTS])
    save_model(office.folder / "ranker", labels=("relevance",))
    talker = letter_tokenizer(256)
    talker.eos_token = talker.sep_token
    talker.save_pretrained(office.folder / "talker")
    office.write("talks.parquet", prompt=[text[:3] for text in TEXTS], completion=[text[3:] for text in TEXTS])
    save_decoder(office.folder / "writer")
    turns = [[{"role": "user", "content": t[:3]}, {"role": "assistant", "content": t[3:]}] for t in TEXTS]
    office.write("chats.parquet", messages=turns)
    lora, qlora = {"name": "lora", "r": 4}, {"name": "qlora", "r": 4}
    # Each head with a method and a stage, so that all pairs of the two are there.
    cases: list[tuple[str, str, dict[str, Any], dict[str, Any], set[str]]] = [
        (
            "tags", "TokenClassification", {}, {"task": "token-classification", "method": lora, "deepspeed": 3},
            {"f1", "precision", "recall"},
        ),
        ("numbers", "model", {}, {"task": CLASSIFY, "deepspeed": 2}, {"pearson", "spearman"}),
        ("several", "model", {}, {"task": CLASSIFY, "method": lora, "deepspeed": 1}, {"micro_f1", "macro_f1"}),
        (
            "answers", "QuestionAnswering", {},
            {
                "task": "question-answering", "max_length": 48, "mode": {"name": "windows", "stride": 8},
                "deepspeed": 3,
            },
            {"exact_match", "f1"},
        ),
        (
            "targets", "tokenizer", {"config": {**t5, "decoder_start_token_id": 0}},
            {"task": {"name": "summarization", "max_new_tokens": 8}, "deepspeed": 1},
            {"rouge1", "rougeL"},
        ),
        (
            "train", "tokenizer", llama,
            {
                "task": "text-generation", "mode": {"name": "packed", "append_eos": False}, "max_length": 64,
                "deepspeed": 3,
            },
            {"perplexity"},
        ),
        ("train", "tokenizer", bert, {"task": "fill-mask", "max_length": 64, "deepspeed": 0}, {"perplexity"}),
        (
            "pairs", "model", {}, {"task": CLASSIFY, "mode": "pair", "method": qlora, "deepspeed": 2},
            {"accuracy", "macro_f1"},
        ),
        ("ranks", "ranker", {}, {"task": "text-ranking", "method": lora, "deepspeed": 2}, {"loss"}),
        (
            "talks", "talker", llama,
            {
                "task": "text-generation", "mode": {"name": "chat", "form": "completion"}, "max_length": 64,
                "deepspeed": 2,
            },
            {"perplexity"},
        ),
        (
            "chats", "writer", {},
            {"task": "text-generation", "mode": "chat", "method": qlora, "deepspeed": 3},
            {"perplexity"},
        ),
        (
            "train", "writer", {},
            {"task": "text-generation", "mode": "plain", "method": qlora, "deepspeed": 1},
            {"perplexity"},
        ),
        ("train", "model", {}, {"task": CLASSIFY, "method": qlora, "deepspeed": 0}, {"accuracy"}),
        ("train", "model", {}, {"task": CLASSIFY, "method": lora, "deepspeed": 0}, {"accuracy"}),
    ]  # fmt: skip
    tried = {(changes.get("method", {"name": "full"})["name"], changes["deepspeed"]) for *_, changes, _ in cases}
    assert len(tried) == 3 * 4
    for name, model, more, changes, metrics in cases:
        path = str(office.folder / f"{name}.parquet")
        steps = 20 if changes.get("method") == qlora else 8
        trainer = TRAINER | {"learning_rate": 3e-3, "max_steps": steps, "eval_on_start": True}
        report = office.run(
            restart=True,
            model={"path": str(office.folder / model), **more},
            input={"train": path, "validation": path},
            trainer=trainer,
            **changes,
        )
        assert report.training is not None
        before, *_, after = [each.metrics["loss"] for each in report.training.evaluations]
        assert after == report.metrics["loss"]
        assert after < before, name
        assert metrics <= set(report.metrics), name
        assert report.training.tokens > 0
        assert report.training.mfu


def test_numbers_cannot_be_smoothed(office: TrainOffice) -> None:
    path = office.write("numbers.parquet", text=TEXTS, label=[len(text) / 10 + 0.05 for text in TEXTS])
    with pytest.raises(SpecError, match=r"label_smoothing_factor: is for one class a row, .* of regression"):
        office.run(**classifier(office, {"label_smoothing_factor": 0.1}, input={"train": path}))
    several = office.write("several.parquet", text=TEXTS, label=[[c for c in "abc" if c in text] for text in TEXTS])
    with pytest.raises(SpecError, match=r"label_smoothing_factor: is for one class a row, .* of multi_label"):
        office.run(restart=True, **classifier(office, {"label_smoothing_factor": 0.1}, input={"train": several}))


def test_the_first_loss_and_the_tokens_are_those_by_hand(office: TrainOffice) -> None:
    """All rows in one step, before anything is learned."""
    save_model(office.folder / "still", labels=CLASSES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    tokenizer = letter_tokenizer()
    for smoothing in (0.0, 0.2):
        report = office.run(
            restart=True,
            **classifier(
                office,
                {"label_smoothing_factor": smoothing, "max_steps": 1},
                model={"path": str(office.folder / "still")},
                global_batch_size=len(TEXTS),
            ),
        )
        assert losses(report)[0] == pytest.approx(
            loss_by_hand(office.folder / "still", TEXTS, LABELS, smoothing), abs=1e-5
        )
        assert report.training is not None
        assert report.training.tokens == sum(len(tokenizer(text).input_ids) for text in TEXTS)


def test_a_label_that_training_rows_do_not_have_is_told(office: TrainOffice) -> None:
    path = office.write("odd.parquet", text=TEXTS[:21], label=[*LABELS[:20], "boiling"])
    parts = {"train": str(office.folder / "train.parquet"), "validation": path}
    with pytest.raises(HfrayError, match=r"1 rows failed \(UnknownLabel 1\).*validation.*errors"):
        office.run(**classifier(office, input=parts))
    (errors,) = (office.out / "_work/tokens/validation").rglob("errors/*.parquet")
    (error,) = pq.read_table(errors)["error"].to_pylist()
    assert error["message"] == "label 'boiling' is not in labels; the 2 classes are 'cold', 'warm'"
    assert office.groups == 0


def test_what_is_not_computed_under_zero_3_cannot_decide_on_the_best_model(office: TrainOffice) -> None:
    path = office.write("targets.parquet", text=TEXTS, target=[text[:6] for text in TEXTS])
    t5 = {"model_type": "t5", "d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 2, "d_kv": 16}
    with pytest.raises(SpecError, match=r"have no 'rouge1' \(no text is generated under ZeRO-3\); known: loss"):
        office.run(
            model={"path": str(office.folder / "tokenizer"), "config": {**t5, "decoder_start_token_id": 0}},
            task="summarization",
            input={"train": path, "validation": path},
            trainer=TRAINER | {"metric_for_best_model": "rouge1"},
            deepspeed=3,
        )
    assert office.groups == 0


# -- stopping and going on


@pytest.mark.parametrize(
    ("method", "deepspeed"),
    [("full", 2), ("lora", 3), ("qlora", 1), ("full", offloaded(2)), ("lora", offloaded(3)), ("full", OWN)],
    ids=["full-2", "lora-3", "qlora-1", "full-2-offloaded", "lora-3-offloaded", "full-own"],
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(office: TrainOffice, method: str, deepspeed: Any) -> None:
    spec = classifier(office, {"save_steps": 2, "max_steps": 8, "eval_steps": 4}, method=method, deepspeed=deepspeed)
    name = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    calm = office.run(**spec)
    weights = (office.out / name).read_bytes()
    office.stop_after = 5
    with pytest.raises(HfrayError):
        office.run(restart=True, **spec)
    assert not (office.out / "_SUCCESS").exists()
    assert not (office.out / name).exists()
    resumed = office.run(**spec)
    assert resumed.training is not None
    assert resumed.training.resumed_from == (4,)
    assert resumed.training.world_sizes == (2, 2)
    assert losses(resumed) == losses(calm)
    assert resumed.metrics == calm.metrics
    assert (office.out / name).read_bytes() == weights
    assert not (office.out / "_work" / "checkpoints").exists()


def test_a_run_that_starts_over_begins_at_the_first_step(office: TrainOffice) -> None:
    spec = classifier(office, {"save_steps": 1})
    office.stop_after = 3
    with pytest.raises(HfrayError):
        office.run(**spec)
    assert list((office.out / "_work" / "checkpoints").glob("*/00000002-*"))
    report = office.run(restart=True, **spec)
    assert report.training is not None
    assert report.training.resumed_from == ()
    assert report.training.world_sizes == (2,)
    assert [point.step for point in report.training.points] == [1, 2, 3, 4, 5, 6]


def test_another_number_of_workers_goes_on_with_the_samples_that_are_left(office: TrainOffice) -> None:
    save_model(office.folder / "still", labels=CLASSES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    still = {"model": {"path": str(office.folder / "still")}, "method": {"name": "lora", "dropout": 0.0}}
    # Losses are logged as means of three steps, between which a checkpoint lies.
    trainer = {
        "save_steps": 2, "logging_steps": 3, "weight_decay": 0.1, "lr_scheduler_type": "cosine", "warmup_steps": 2,
    }  # fmt: skip
    calm = office.run(**classifier(office, trainer, **still, deepspeed=0))
    office.stop_after = 3
    with pytest.raises(HfrayError):
        office.run(restart=True, **classifier(office, trainer, **still, deepspeed=0))
    office.world_size = 1
    # Fewer workers, an author's own configuration in place of none, activations computed again.
    trainer |= {"activation_checkpointing": True}
    own = {"zero_optimization": {"stage": 1}, "gradient_clipping": "auto"}
    resumed = office.run(**classifier(office, trainer, **still, deepspeed=own, workers={"min": 1}))
    assert resumed.training is not None
    assert [point.step for point in resumed.training.points] == [2, 3, 4, 6]
    assert resumed.training.world_sizes == (2, 1)
    assert losses(resumed) == pytest.approx(losses(calm), abs=1e-4)
    assert resumed.metrics["loss"] == pytest.approx(calm.metrics["loss"], abs=1e-4)


def test_the_best_checkpoint_is_the_result_and_no_progress_ends_the_run(office: TrainOffice) -> None:
    trainer = {"eval_steps": 1, "eval_strategy": "steps", "max_steps": 40, "learning_rate": 0.05}
    spec = classifier(office, trainer | {"load_best_model_at_end": True}, early_stopping=2)
    report = office.run(**spec)
    facts = report.training
    assert facts is not None
    evaluated = {each.step: each.metrics["loss"] for each in facts.evaluations}
    best = min(evaluated, key=lambda step: evaluated[step] or math.inf)
    assert facts.best_step == best
    assert facts.step == best + 2 < 40
    assert report.metrics["loss"] == evaluated[best]
    saved = loss_by_hand(office.out, TEXTS[:21], LABELS[:21])
    assert saved == pytest.approx(evaluated[best], abs=1e-5)
    assert saved != pytest.approx(evaluated[best + 2], abs=1e-3)
    # What the cadence stands for is said once.
    assert not set(office.setups[-1].trainer) & {*SETTLED, "max_steps"}
    assert office.setups[-1].trainer["learning_rate"] == 0.05


def test_a_run_that_was_killed_when_it_had_ended_learns_nothing_more(office: TrainOffice) -> None:
    trainer = {"eval_steps": 1, "eval_strategy": "steps", "max_steps": 40, "learning_rate": 0.05}
    for spec in (
        classifier(office, {"max_steps": 2}),
        classifier(office, trainer | {"load_best_model_at_end": True}, early_stopping=1),
    ):
        calm = office.run(restart=True, **spec)
        assert calm.training is not None
        weights = (office.out / "model.safetensors").read_bytes()
        office.stop_after = "training"
        with pytest.raises(HfrayError):
            office.run(restart=True, **spec)
        resumed = office.run(**spec)
        assert resumed.training is not None
        assert resumed.training.resumed_from == (calm.training.step,)
        assert resumed.training.step == calm.training.step
        assert losses(resumed) == losses(calm)
        assert resumed.metrics == calm.metrics
        assert (office.out / "model.safetensors").read_bytes() == weights


def test_a_loss_that_is_no_number_names_its_step_and_keeps_the_checkpoint_before(office: TrainOffice) -> None:
    trainer = {"learning_rate": 1e30, "save_steps": 1, "max_grad_norm": 0.0, "lr_scheduler_type": "constant"}
    with pytest.raises(EngineError, match=r"the loss of step [2-6] is not a finite number.*learning_rate"):
        office.run(**classifier(office, trainer))
    assert not (office.out / "_SUCCESS").exists()
    sealed = list((office.out / "_work" / "checkpoints").glob("*/*/manifest.json"))
    assert sealed
    files = [file for each in sealed for file in each.parent.glob("*.safetensors")]
    weights = [each for file in files for name, each in load_file(file).items() if name.startswith("master/")]
    assert weights
    assert all(bool(each.isfinite().all()) for each in weights)
    failed = json.loads((office.out / "report.json").read_text())
    assert failed["status"] == "failed"


def test_no_memory_is_the_operators_to_mend(office: TrainOffice) -> None:
    office.stop_after = "memory"
    with pytest.raises(HfrayError, match=r"hfray\.errors\.EngineError: a worker is out of memory.*CUDA out of memory"):
        office.run(**classifier(office))


def test_no_room_for_the_result_is_told_by_all_workers(office: TrainOffice) -> None:
    office.stop_after = "disk"
    with pytest.raises(HfrayError, match=r"hfray\.errors\.DataError: result in .*: No space left on device"):
        office.run(**classifier(office, {"max_steps": 1}, deepspeed=3))
    told = [path.read_text() for path in (office.folder / "group-1").glob("error-*")]
    assert len(told) == 2
    assert all("hfray.errors.DataError: result in" in each for each in told)
    assert not (office.out / "model.safetensors").exists()


# -- running it again


def test_a_finished_job_does_nothing_and_another_one_is_refused(office: TrainOffice) -> None:
    spec = classifier(office, {"max_steps": 2})
    office.run(**spec)
    groups, before = office.groups, (office.out / "model.safetensors").stat().st_mtime_ns
    assert office.run(**spec).message == "already complete: nothing to do"
    with pytest.raises(SpecError, match=r"was begun with another job:\n.*learning_rate"):
        office.run(**classifier(office, {"max_steps": 2, "learning_rate": 0.5}))
    # What changes no answer may change.
    assert office.run(**classifier(office, {"max_steps": 2, "logging_steps": 2})).status == "complete"
    assert (office.groups, (office.out / "model.safetensors").stat().st_mtime_ns) == (groups, before)
    tokens = office.out / "_work" / "tokens" / "train" / "_SUCCESS"
    made = tokens.stat().st_mtime_ns
    office.run(restart=True, **classifier(office, {"max_steps": 2, "learning_rate": 0.5}))
    assert office.groups == groups + 1
    assert tokens.stat().st_mtime_ns == made  # the same rows are not tokenised again


def test_a_model_of_somebody_else_is_never_written_over(office: TrainOffice) -> None:
    save_model(office.out, labels=CLASSES)
    weights = (office.out / "model.safetensors").read_bytes()
    for restart in (False, True):
        with pytest.raises(SpecError, match=r"output\.path: .* holds files that this job has not written \(config"):
            office.run(restart=restart, **classifier(office))
    assert office.groups == 0
    assert (office.out / "model.safetensors").read_bytes() == weights
    assert not (office.out / "_work" / "tokens").exists()  # said before the rows are tokenised


def test_a_tokenised_folder_is_learned_from_and_must_be_of_the_same_tokenizer(office: TrainOffice) -> None:
    office.run(**classifier(office, {"max_steps": 2}))
    tokens = {part: str(office.out / "_work" / "tokens" / part) for part in ("train", "validation")}
    office.out.rename(office.folder / "kept")
    tokens = {part: path.replace("/out/", "/kept/") for part, path in tokens.items()}
    report = office.run(**classifier(office, {"max_steps": 2}, input=tokens))
    assert set(report.metrics) == {"loss"}  # there are no rows to answer
    path = Path(tokens["validation"], "tokens.json")
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"labels": facts["labels"][::-1]}))
    with pytest.raises(
        SpecError, match=r"input\.validation: label 0 is warm there and cold in input\.train; .*mode\.lab"
    ):
        office.run(restart=True, **classifier(office, {"max_steps": 2}, input=tokens))
    other = letter_tokenizer()
    other.backend_tokenizer.normalizer = normalizers.Lowercase()
    save_model(office.folder / "other", labels=CLASSES)
    other.save_pretrained(office.folder / "other")
    with pytest.raises(SpecError, match=r"input\.train: the tokens were made by the tokenizer of .*fingerprint"):
        office.run(restart=True, **classifier(office, input=tokens, model={"path": str(office.folder / "other")}))


def test_packed_sequences_are_learned_and_single_texts_evaluated(office: TrainOffice) -> None:
    folders = {}
    for part, mode in (("train", "packed"), ("validation", "plain")):
        folders[part] = str(office.folder / part)
        spec = {
            "name": part,
            "model": {"path": str(office.folder / "tokenizer")},
            "mode": {"name": mode, "append_eos": False} if mode == "packed" else mode,
            "max_length": 64,
            "input": {"path": str(office.folder / "train.parquet")},
            "output": {"path": folders[part]},
        }
        with Progress(Console(file=io.StringIO()), quiet=True) as progress:
            made = TokenizeRun(TokenizeJob.model_validate(spec), progress, job_path="", log_path="", debug=False)
            made.run(restart=False, retry_errors=False)
    tiny = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    report = office.run(
        model={"config": {"model_type": "llama", "num_key_value_heads": 2, "max_position_embeddings": 128, **tiny}},
        task="text-generation",
        input=folders,
        trainer=TRAINER | {"max_steps": 2, "eval_on_start": True},
    )
    assert set(report.metrics) == {"loss", "perplexity"}
