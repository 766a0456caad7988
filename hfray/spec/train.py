"""`kind: train`: a model and examples to a tuned model."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from hfray.spec.fields import NAME_PATTERN, identity_of, misfit, named, operational
from hfray.spec.labels import Labels
from hfray.spec.methods import FullSpec, MethodSpec
from hfray.spec.sections import InputSpec, WorkersSpec
from hfray.spec.trainer import METRIC_SCHEDULES, OPERATIONAL, SMOOTHED, refusal
from hfray.tasks import TASKS
from hfray.tasks.base import TaskOptions
from hfray.tasks.features import MODES
from hfray.tasks.features.base import FeatureOptions
from hfray.types import Strict

MICRO_BATCH_SIZE = 8
"""Of one worker, where the job does not say `trainer.per_device_train_batch_size`."""

MODES_OF_TASK: dict[str, tuple[str, ...]] = {
    "text-classification": ("plain", "pair"),
    "text-ranking": ("pair", "plain"),
    "token-classification": ("words",),
    "question-answering": ("windows",),
    "summarization": ("seq2seq",),
    "translation": ("seq2seq",),
    "text2text-generation": ("seq2seq",),
    "text-generation": ("packed", "chat", "plain"),
    "fill-mask": ("plain", "pair"),
}
"""Which features train a task."""


def _as_input(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


def _as_early_stopping(value: object) -> object:
    return {"patience": value} if isinstance(value, int) and not isinstance(value, bool) else value


if TYPE_CHECKING:
    TrainTask = TaskOptions
    TrainMode = FeatureOptions
else:  # one member per task and per mode, told apart by `name`
    _TASKS = reduce(or_, (TASKS[name].Options for name in MODES_OF_TASK))
    _MODES = reduce(or_, (mode.Options for mode in MODES.values()))
    TrainTask = Annotated[Annotated[_TASKS, Field(discriminator="name")], BeforeValidator(named)]
    TrainMode = Annotated[Annotated[_MODES, Field(discriminator="name")], BeforeValidator(named)]

OneInput = Annotated[InputSpec, BeforeValidator(_as_input)]


class BaseModelSpec(Strict):
    """The model to start from, or what to make one of."""

    path: str | None = Field(default=None, min_length=1)
    """A hub id, a folder, or `package:NAME/FOLDER`; with `config`, whose tokenizer and configuration."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; resolved to its commit once."""
    config: dict[str, Any] | None = None
    """From scratch: configuration values of a new model without trained weights, such as {model_type: llama,
    hidden_size: 256}; they go over those of `path`, if it has some."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    """Attention implementation; `auto` is Transformers' choice."""

    @model_validator(mode="after")
    def _check_source(self) -> BaseModelSpec:
        if self.path is None and self.config is None:
            raise misfit("path", "missing; a hub id or a folder (or a config, to train a model from scratch)")
        if self.path is None and not isinstance((self.config or {}).get("model_type"), str):
            raise misfit("config.model_type", "missing; the architecture, such as llama, or a path that has one")
        if self.path is None and self.revision is not None:
            raise misfit("revision", "of what? There is no path")
        return self


class TrainInputSpec(Strict):
    """What is learned. Each part is raw rows, which are tokenised first, or a folder that a tokenize job has made: then
    only `path` and `split` (default: the part's own name) are given."""

    train: OneInput
    """Rows to learn from."""
    validation: OneInput | None = None
    """Rows to evaluate on while training."""


class EarlyStoppingSpec(Strict):
    """Ends the run when evaluations stop getting better."""

    patience: int = Field(ge=1)
    """Evaluations in a row that may be no better than the best one."""
    threshold: float = Field(default=0.0, ge=0)
    """How much better counts as better."""


class ModelOutputSpec(Strict):
    """Where the tuned model goes."""

    path: str = operational(..., min_length=1)
    """A folder, local or on s3://, gs://, az://; one job each."""


class TrainWorkersSpec(WorkersSpec):
    """How many workers learn together, and what each takes. Nothing here changes an answer."""

    max: int | None = operational(None, ge=1)
    """Most workers; default: `min`, whatever room there is. Above it as many as there is room for, also while the run
    goes on. Each number from `min` on must be able to share `global_batch_size`: the first that cannot is the end of
    the range, and the run says so."""
    gpus: float = operational(0.0, ge=0)
    """1 for a worker with a GPU, 0 without."""
    labels: Labels = operational({"ray.io/market-type": "!spot"})
    """Only on nodes with these labels; by default on none that may be taken away, since each loss costs all workers
    the steps since the last checkpoint. {} allows all nodes."""


class TrainJob(Strict):
    """Tunes a model, or trains one from scratch."""

    kind: Literal["train"] = "train"
    """What the job does."""
    name: str = operational(..., pattern=NAME_PATTERN)
    """Names reports and logs: lower-case letters, digits, `.`, `_`, `-`."""
    model: BaseModelSpec
    """The model to start from."""
    task: TrainTask
    """What the model shall do; its options are those of scoring, and hold for evaluation."""
    mode: TrainMode | None = None
    """How raw rows become examples (see kind: tokenize); default: the task's own way. Not for tokenised folders."""
    max_length: int | None = Field(default=None, ge=8, le=2**20)
    """Most tokens of an example made of raw rows; default: the model's own limit."""
    method: MethodSpec = FullSpec()
    """What is trained: full, lora or qlora."""
    input: TrainInputSpec
    """Rows, or tokenised folders."""
    global_batch_size: int = Field(default=32, ge=1)
    """Examples of one optimizer step, over all workers; accumulation follows from it, whatever their number is."""
    trainer: dict[str, Any] = Field(default_factory=dict)
    """Transformers' TrainingArguments by their own names, such as num_train_epochs or learning_rate; those that would
    do nothing here are refused."""
    deepspeed: Annotated[int, Field(ge=0, le=3)] | dict[str, Any] | str = operational("auto")
    """auto chooses a ZeRO stage by what fits; a stage, 0 to 3; or a DeepSpeed configuration, here or in a JSON file."""
    mask_probability: float = Field(default=0.15, gt=0, lt=1)
    """fill-mask: share of tokens that are to be guessed."""
    early_stopping: EarlyStoppingSpec | None = Field(default=None)
    """Ends the run before its last step; a number alone is its patience."""
    output: ModelOutputSpec
    """Where the tuned model goes."""
    workers: TrainWorkersSpec = operational(TrainWorkersSpec())
    """How many learn together, and what each takes."""
    max_failures: int = operational(3, ge=-1)
    """How often lost workers are replaced before the job gives up; -1: always."""
    max_error_rate: float = operational(0.01, ge=0, le=1)
    """Share of raw rows that may fail to become examples; above it the job ends with exit code 3."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of the order of examples, new weights, dropout and masks."""

    @field_validator("early_stopping", mode="before")
    @classmethod
    def _patience_alone(cls, value: object) -> object:
        return _as_early_stopping(value)

    @field_validator("deepspeed", mode="before")
    @classmethod
    def _check_deepspeed(cls, value: object) -> object:
        a_file = isinstance(value, str) and (value == "auto" or value.endswith(".json"))
        if isinstance(value, bool) or (isinstance(value, str) and not a_file):
            raise ValueError("must be auto, a ZeRO stage (0 to 3), a mapping of DeepSpeed's keys, or a .json file")
        return value

    @property
    def subject(self) -> str:
        """What it does, in a word."""
        return self.task.name

    @property
    def micro_batch_size(self) -> int:
        """Examples of one worker at once. Of a job whose trainer fields are checked."""
        return int(self.trainer.get("per_device_train_batch_size", MICRO_BATCH_SIZE))

    @property
    def features_mode(self) -> str:
        """How raw rows become examples."""
        return self.mode.name if self.mode is not None else str(TASKS[self.task.name].training_mode)

    @model_validator(mode="after")
    def _check_trainer(self) -> TrainJob:
        for name in self.trainer:
            problem = refusal(name)
            if problem is not None:
                raise misfit(f"trainer.{name}", problem)
        if self.trainer.get("bf16") is True and self.trainer.get("fp16") is True:
            raise misfit("trainer.fp16", "trainer.bf16 is true already; choose one of them")
        schedule = self.trainer.get("lr_scheduler_type")
        if schedule in METRIC_SCHEDULES:
            raise misfit(
                "trainer.lr_scheduler_type",
                f"{schedule} follows a metric, and rates here follow samples, so that a stopped run goes on with the "
                "same ones; use another, such as linear or cosine",
            )
        if self.trainer.get("label_smoothing_factor") and self.task.name not in SMOOTHED:
            raise misfit(
                "trainer.label_smoothing_factor",
                f"is not for {self.task.name}, but for {', '.join(SMOOTHED)}; remove it",
            )
        micro = self.trainer.get("per_device_train_batch_size")
        if isinstance(micro, int) and micro > self.global_batch_size:
            raise misfit(
                "trainer.per_device_train_batch_size", f"{micro} is above global_batch_size, {self.global_batch_size}"
            )
        return self

    @model_validator(mode="after")
    def _check_together(self) -> TrainJob:
        if self.model.config is not None and self.method.name != "full":
            raise misfit(
                "method", f"{self.method.name} beside weights that are random; use full, or remove model.config"
            )
        modes = MODES_OF_TASK[self.task.name]
        if self.mode is not None and self.mode.name not in modes:
            known = " and ".join(modes)
            raise misfit("mode", f"{self.mode.name} does not train {self.task.name}, which takes {known}")
        return self

    @model_validator(mode="after")
    def _check_evaluations(self) -> TrainJob:
        comparing = ["early_stopping"] if self.early_stopping is not None else []
        needing = ("load_best_model_at_end", "metric_for_best_model")
        comparing += [f"trainer.{key}" for key in needing if self.trainer.get(key)]
        strategy = self.trainer.get("eval_strategy")
        if self.input.validation is None:
            waiting = [*comparing, *(["trainer.eval_on_start"] if self.trainer.get("eval_on_start") else [])]
            waiting += ["trainer.eval_strategy"] if strategy not in (None, "no", False) else []
            if waiting:
                raise misfit(waiting[0], "needs input.validation, on which evaluations are made")
        elif comparing and strategy in ("no", False):
            raise misfit(
                comparing[0], "compares evaluations, and trainer.eval_strategy is no; use epoch or steps, or remove it"
            )
        return self


def training_identity(job: TrainJob) -> dict[str, Any]:
    """`identity_of` the job, without the training arguments that change no answer."""
    identity = identity_of(job)
    return identity | {"trainer": {key: value for key, value in identity["trainer"].items() if key not in OPERATIONAL}}


def beside_path(spec: InputSpec) -> tuple[str, ...]:
    """Which keys of an input say more than where a tokenised folder is, and so cannot be given with one."""
    given = spec.model_dump(exclude_defaults=True)
    return tuple(key for key in given if key not in ("path", "split"))
