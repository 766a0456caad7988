"""Everything about a training job that can be wrong before anything is started: fields, model, method, tokens, batch.

Knows configurations, tokenizers and models without weights; starts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from hfray.data.tokens import TOKENIZER_FOLDER, Tokens, is_tokenised, read_tokens
from hfray.errors import SpecError
from hfray.kinds.train_metric import check_metric
from hfray.kinds.train_numbers import batch_shape, check_run, world_sizes_of
from hfray.models.info import model_info
from hfray.models.packed_attention import Separation, prove_packing
from hfray.models.quantization import is_quantized, quantization_of
from hfray.models.resolve import ADAPTER_CONFIG
from hfray.models.source import ModelSource, resolve_source
from hfray.models.targets import Targets, on_meta, targets_of
from hfray.models.tokenizers import TokenizerFacts, load_tokenizer, safe_max_length
from hfray.models.trainable import Head, Vocabulary, training_config
from hfray.spec.methods import LoraSpec
from hfray.spec.sections import InputSpec
from hfray.spec.tokenize import packs
from hfray.spec.train import TrainJob, beside_path
from hfray.spec.trainer import check_trainer_fields
from hfray.tasks import TASKS
from hfray.tasks.features import MODES
from hfray.training.batches import Padding, collator_for
from hfray.training.masking import Masking
from hfray.training.plan import Wanted

_ANY_LABELS = 2
"""Classes of a head that is only looked at."""


@dataclass(frozen=True, slots=True)
class CheckedTraining:
    """What the checks found out and the run needs again."""

    job: TrainJob
    """Resolved: hub revisions are commits."""
    trainer: Mapping[str, Any]
    """Training arguments of the right types."""
    source: ModelSource | None
    """Of weights or a configuration."""
    tokenizer_source: ModelSource
    tokenizer: Any
    tokenizer_facts: TokenizerFacts
    max_length: int | None
    """Of examples that are made of rows."""
    targets: Targets | None
    separation: Separation | None
    """Where it was proved already."""
    world_sizes: tuple[int, ...]
    """Numbers of workers that the run may have: from `workers.min` on, without a gap."""
    note: str
    """Why they do not reach `workers.max`; "" if they do."""
    deepspeed: Wanted
    """With the content of the author's file."""
    train_tokens: Tokens | None
    validation_tokens: Tokens | None
    """Of inputs that are tokenised folders."""

    @property
    def vocabulary(self) -> Vocabulary:
        facts = self.tokenizer_facts
        return Vocabulary(facts.vocab_size, facts.pad_token_id, facts.eos_token_id, facts.bos_token_id)

    @property
    def auto_model(self) -> str:
        return TASKS[self.job.task.name].auto_model


def check_training(job: TrainJob) -> CheckedTraining:
    """Raises SpecError."""
    trainer = check_trainer_fields(job.trainer)
    sizes, note = world_sizes_of(job)
    wanted = Wanted.of(job.deepspeed)
    decided = wanted.check((batch_shape(job, size) for size in sizes), trainer)
    check_run(job, decided)
    if decided.get("fp16") is True and not job.workers.gpus:
        place = "trainer.fp16" if "fp16" in trainer else f"{wanted.name}: fp16.enabled"
        raise SpecError(f"{place}: is for GPUs (workers.gpus: 1); on CPUs use trainer.bf16: true")
    train_tokens, validation_tokens = _tokenised(job.input.train), _tokenised(job.input.validation)
    given = validation_tokens is not None
    check_metric(job, trainer, without_rows="input.validation is a folder of tokens" if given else "")
    source, tokenizer_source = _sources(job, train_tokens)
    tokenizer = load_tokenizer(tokenizer_source)
    name = job.model.path or "model.config"
    facts = TokenizerFacts.of(tokenizer, tokenizer_source.name, with_template=True)
    vocabulary = Vocabulary(facts.vocab_size, facts.pad_token_id, facts.eos_token_id, facts.bos_token_id)
    auto_model = TASKS[job.task.name].auto_model
    config = training_config(job.model, source, Head(auto_model, num_labels=_ANY_LABELS), vocabulary)
    model = on_meta(config, auto_model)
    targets = targets_of(job.method, model, auto_model) if isinstance(job.method, LoraSpec) else None
    if source is not None and job.model.config is None:
        _check_weights(source, config)
    for tokens, field in ((train_tokens, "input.train"), (validation_tokens, "input.validation")):
        if tokens is not None:
            _check_tokens(job, tokens, field, tokenizer, name)
    if train_tokens is not None and validation_tokens is not None:
        check_labels(train_tokens, validation_tokens)
    separation = _separation(job, config, train_tokens, validation_tokens)
    return CheckedTraining(
        job=_pinned(job, source, tokenizer_source),
        trainer=trainer,
        source=source,
        tokenizer_source=tokenizer_source,
        tokenizer=tokenizer,
        tokenizer_facts=facts,
        max_length=None if train_tokens is not None else _max_length(job, source, config, tokenizer),
        targets=targets,
        separation=separation,
        world_sizes=sizes,
        note=note,
        deepspeed=wanted,
        train_tokens=train_tokens,
        validation_tokens=validation_tokens,
    )


def collator_of(checked: CheckedTraining, tokens: Tokens, max_length: int | None) -> Any:
    """What makes batches of these tokens. max_length: the most that the model takes."""
    tokenizer = checked.tokenizer
    padding = Padding(
        pad_token_id=next(
            int(each) for each in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if each is not None
        ),
        pad_token_type_id=int(getattr(tokenizer, "pad_token_type_id", 0) or 0),
        multiple_of=8 if checked.job.workers.gpus else 1,
        max_length=max_length,
    )
    masking = None
    if tokenizer.mask_token_id is not None:
        masking = Masking(
            probability=checked.job.mask_probability,
            seed=checked.job.seed,
            mask_token_id=tokenizer.mask_token_id,
            vocab_size=tokens.tokenizer.vocab_size,
            special_ids=tuple(tokenizer.all_special_ids),
        )
    return collator_for(tokens, checked.job.task.name, padding, masking)


def _tokenised(spec: InputSpec | None) -> Tokens | None:
    """The tokens of an input that is a tokenised folder; None for rows."""
    if spec is None or len(spec.path) != 1:
        return None
    path = spec.path[0]
    if not is_tokenised(path):
        return None
    tokens = read_tokens(path)
    beside = beside_path(spec)
    if beside:
        raise SpecError(
            f"input.{beside[0]}: {path} is a tokenised folder, whose examples are made already; remove the key, or run "
            "the tokenize job again with it"
        )
    return tokens


def _sources(job: TrainJob, tokens: Tokens | None) -> tuple[ModelSource | None, ModelSource]:
    """Where the model and its tokenizer come from."""
    if job.model.path is not None:
        kind: Any = "tokenizer" if job.model.config is not None else "model"
        found = resolve_source(job.model.path, job.model.revision, kind=kind)
        if ADAPTER_CONFIG in found.files and not found.has_safetensors and job.model.config is None:
            raise SpecError(
                f"model.path: {found.name} is an adapter; merge it first (hfray explain export) and train what that "
                "makes, or train its base"
            )
        has_config = "config.json" in found.files
        return (found if has_config or job.model.config is None else None), found
    if tokens is None:
        raise SpecError(
            "model.path: missing; rows become tokens with a tokenizer: name one (a hub id, a folder, or one that a "
            "job with mode: tokenizer has made), or train on a tokenised folder"
        )
    folder = f"{job.input.train.path[0].rstrip('/')}/{TOKENIZER_FOLDER}"
    return None, resolve_source(folder, None, kind="tokenizer")


def _check_weights(source: ModelSource, config: Any) -> None:
    """Raises SpecError for weights that cannot be trained."""
    if not source.has_safetensors:
        raise SpecError(
            f"model.path: {source.name} has no model.safetensors; pickled weights can run code and are not loaded. "
            "Convert it once with save_pretrained(), or train from scratch with model.config"
        )
    if is_quantized(config):
        raise SpecError(
            f"model.path: the weights of {source.name} are quantised ({quantization_of(config)}) and cannot be "
            "trained; start from the model that they were made of, with method: qlora where memory is short"
        )


def _check_tokens(job: TrainJob, tokens: Tokens, field: str, tokenizer: Any, name: str) -> None:
    try:
        tokens.tokenizer.check_same(tokenizer, name)
    except SpecError as error:
        raise SpecError(f"{field}: {error}") from None
    if job.mode is not None:
        raise SpecError(f"mode: {field} is a tokenised folder, whose examples are made already; remove the key")


def check_labels(train: Tokens, validation: Tokens) -> None:
    """Raises SpecError where an index in the column `labels` is not the same class in both parts."""
    if train.labels and validation.labels and train.labels != validation.labels:
        pairs = enumerate(zip_longest(train.labels, validation.labels))
        number, (one, other) = next((at, pair) for at, pair in pairs if pair[0] != pair[1])
        raise SpecError(
            f"input.validation: label {number} is {other or 'none'} there and {one or 'none'} in input.train; run its "
            "tokenize job again with `mode.labels` as input.train has them, or give the rows themselves"
        )


def _separation(job: TrainJob, config: Any, *parts: Tokens | None) -> Separation | None:
    """How packed documents are kept apart, where examples are packed."""
    if not any(packs(_mode_options(job)) if tokens is None else tokens.packed for tokens in parts):
        return None
    attention = None if job.model.attention == "auto" else job.model.attention
    return prove_packing(config, attention=attention)


def _mode_options(job: TrainJob) -> Any:
    return job.mode if job.mode is not None else MODES[job.features_mode].Options(name=job.features_mode)


def _max_length(job: TrainJob, source: ModelSource | None, config: Any, tokenizer: Any) -> int | None:
    limits = [safe_max_length(tokenizer)]
    if source is not None:
        limits.append(model_info(source, config, tokenizer=tokenizer).max_length)
    else:
        limits.append(getattr(config, "max_position_embeddings", None))
    known = [each for each in limits if each is not None]
    if job.max_length is not None:
        if known and job.max_length > min(known):
            raise SpecError(f"max_length: {job.max_length:,} is above what the model takes, {min(known):,}")
        return job.max_length
    return MODES[job.features_mode].default_max_length(min(known, default=None))


def _pinned(job: TrainJob, source: ModelSource | None, tokenizer: ModelSource) -> TrainJob:
    """The job with a branch or tag replaced by the commit that it names now."""
    revision = (source or tokenizer).revision
    return job.model_copy(update={"model": job.model.model_copy(update={"revision": revision})})
