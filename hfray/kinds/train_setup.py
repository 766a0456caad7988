"""What a training job's workers are given: the head, DeepSpeed's configuration, the schedule, the rows to evaluate on.
Knows every layer below; starts nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hfray.data.huggingface import hub_name
from hfray.data.ledger import Ledger
from hfray.data.tokens import Tokens
from hfray.errors import SpecError
from hfray.kinds.cluster import Cluster
from hfray.kinds.indexing import index_input
from hfray.kinds.rows import columns_of, row_reader
from hfray.kinds.train_check import CheckedTraining, collator_of
from hfray.kinds.train_memory import worker_memory
from hfray.kinds.train_metric import REFERENCES, check_metric
from hfray.kinds.train_numbers import batch_shape, length_of, schedule_of
from hfray.kinds.train_tokens import Tokenised, largest_label
from hfray.kinds.versions import versions
from hfray.models.model_card import HUB_DATA
from hfray.models.result import AdapterFacts, BaseFacts, ResultFacts
from hfray.models.trainable import Head, training_config
from hfray.spec.methods import LoraSpec, QloraSpec
from hfray.spec.score import ScoreJob
from hfray.spec.sections import InputSpec, ModelSpec, OutputSpec
from hfray.spec.yaml_lines import dump
from hfray.tasks import TASKS
from hfray.training.batches import columns_read
from hfray.training.cadence import SETTLED, Cadence
from hfray.training.memory import Precision, Setting
from hfray.training.plan import DeepSpeedPlan, plan_deepspeed
from hfray.training.secret import secret_key
from hfray.training.setup import Examples, ModelSetup, TrainSetup, ValidationRows
from hfray.training.size import AdapterShape, ModelSize, size_of

VALIDATION_SHARD_ROWS = 256
_SAID_OTHERWISE = (*SETTLED, "bf16", "fp16", "max_steps")
"""Training arguments for which a setup has fields of its own."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What the workers get, and what is told of it."""

    setup: TrainSetup
    plan: DeepSpeedPlan
    """For the least number of workers."""
    size: ModelSize


class SetupMaker:
    """Puts a checked job and its tokens together."""

    def __init__(
        self,
        checked: CheckedTraining,
        train: Tokenised,
        validation: Tokenised | None,
        ledger: Ledger,
        cluster: Cluster,
        phase: Callable[[str], None],
    ) -> None:
        self._job = checked.job
        self._checked = checked
        self._train = train
        self._validation = validation
        self._ledger = ledger
        self._cluster = cluster
        self._phase = phase

    def settle(self) -> Settled:
        """Raises SpecError: nothing fits, there are no examples, or no evaluation has the metric of the best model."""
        job, checked, tokens = self._job, self._checked, self._train.tokens
        num_examples = next(split.examples for split in tokens.splits if split.name == self._train.split)
        length = length_of(job, checked.trainer, num_examples)
        cadence = Cadence.of(checked.trainer, length, has_validation=self._validation is not None)
        head = self._head(tokens)
        if checked.trainer.get("label_smoothing_factor") and head.problem_type in (
            "regression",
            "multi_label_classification",
        ):
            raise SpecError(
                f"trainer.label_smoothing_factor: is for one class a row, and the labels are of {head.problem_type}; "
                "remove it"
            )
        config = training_config(job.model, checked.source, head, checked.vocabulary)
        limit = tokens.max_length or checked.max_length
        size = self._size(config, head)
        precision, plans = self._plans(size, limit)
        plan = plans[checked.world_sizes[0]]
        trainer = {**checked.trainer, **plan.trainer}
        divided = self._generates_divided(plan)
        rows = None if divided else self._validation_rows()
        if rows is None:
            why = "no text is generated under ZeRO-3" if divided else "the validation rows have no answers"
            check_metric(job, checked.trainer, without_rows=why)
        setup = TrainSetup(
            name=job.name,
            ledger=self._ledger,
            facts=self._facts(head),
            model=ModelSetup(
                spec=job.model,
                source=checked.source,
                tokenizer=checked.tokenizer_source,
                head=head,
                vocabulary=checked.vocabulary,
                method=job.method,
                precision=precision,
                targets=checked.targets,
                separation=checked.separation,
            ),
            task=self._task_options(head),
            examples=self._examples(self._train, limit),
            validation=None if self._validation is None else self._examples(self._validation, limit),
            rows=rows,
            schedule=schedule_of(trainer, length),
            micro_batch_size=job.micro_batch_size,
            trainer={key: value for key, value in trainer.items() if key not in _SAID_OTHERWISE},
            deepspeed={size: plan.config for size, plan in plans.items()},
            cadence=cadence,
            early_stopping=job.early_stopping,
            seed=job.seed,
            gpus=job.workers.gpus,
            threads=max(1, int(job.workers.cpus)),
            checkpoint_key=secret_key(),
        )
        return Settled(setup, plan, size)

    def _examples(self, tokenised: Tokenised, limit: int | None) -> Examples:
        collator = collator_of(self._checked, tokenised.tokens, limit)
        return Examples(tokenised.path, tokenised.split, collator, columns_read(collator, tokenised.tokens))

    def _head(self, tokens: Tokens) -> Head:
        auto_model = self._checked.auto_model
        type_ = tokens.columns.get("labels", "")
        if auto_model == "AutoModelForTokenClassification":
            return Head(auto_model, tokens.labels)
        if auto_model == "AutoModelForQuestionAnswering":
            return Head(auto_model, num_labels=2)  # where an answer starts, and where it ends
        if auto_model != "AutoModelForSequenceClassification":
            return Head(auto_model)
        if tokens.labels:
            problem = "multi_label_classification" if type_.startswith("list") else "single_label_classification"
            return Head(auto_model, tokens.labels, problem_type=problem)
        if type_ in ("float", "double"):
            return Head(auto_model, num_labels=1, problem_type="regression")
        # A class that only the validation split has needs its place too: without one its loss cannot be computed.
        validation = self._validation
        splits = [self._train, *([validation] if validation and "labels" in validation.tokens.columns else [])]
        num_labels = largest_label(splits) + 1
        return Head(auto_model, num_labels=num_labels, problem_type="single_label_classification")

    def _task_options(self, head: Head) -> Any:
        """The job's, with every score of a multi-label model: its metrics compare them all."""
        task = self._job.task
        if head.problem_type == "multi_label_classification" and getattr(task, "top_k", 0) is None:
            return task.model_copy(update={"top_k": "all"})
        return task

    def _size(self, config: Any, head: Head) -> ModelSize:
        method, targets = self._job.method, self._checked.targets
        shape = None
        if isinstance(method, LoraSpec) and targets is not None:
            shape = AdapterShape(method.r, targets.layers, targets.whole, method.dora)
        return size_of(config, head.auto_model, shape)

    def _plans(self, size: ModelSize, max_tokens: int | None) -> tuple[Precision, dict[int, DeepSpeedPlan]]:
        """The precision, and DeepSpeed's configuration for every number of workers."""
        job, checked = self._job, self._checked
        memory_bytes, host_bytes = worker_memory(self._cluster, job.workers, checked.world_sizes[-1])
        precision: Precision = (
            "bf16" if checked.trainer.get("bf16") else "fp16" if checked.trainer.get("fp16") else "fp32"
        )
        plans: dict[int, DeepSpeedPlan] = {}
        for world_size in checked.world_sizes:
            setting = Setting(
                stage=0,
                world_size=world_size,
                precision=precision,
                micro_batch_size=job.micro_batch_size,
                max_tokens=max_tokens or 512,
                bits=4 if isinstance(job.method, QloraSpec) else None,
                double_quantization=getattr(job.method, "double_quantization", True),
                checkpointing=bool(checked.trainer.get("activation_checkpointing")),
                eager_attention=job.model.attention == "eager",
                on_gpu=job.workers.gpus > 0,
            )
            plans[world_size] = plan_deepspeed(
                checked.deepspeed,
                size,
                setting,
                batch_shape(job, world_size),
                checked.trainer,
                memory_bytes=memory_bytes,
                host_bytes=host_bytes,
            )
        decided = plans[checked.world_sizes[0]].trainer
        if decided.get("bf16") is True:
            precision = "bf16"
        elif decided.get("fp16") is True:
            precision = "fp16"
        return precision, plans

    def _generates_divided(self, plan: DeepSpeedPlan) -> bool:
        """Whether a text would be generated by a model whose weights are divided among ranks: they would have to make
        each token together."""
        return plan.choice.stage == 3 and TASKS[self._job.task.name].mode == "generate"

    def _validation_rows(self) -> ValidationRows | None:
        """Where the task's own metrics can be computed: rows that hold what should come out."""
        job, reference = self._job, REFERENCES.get(self._job.task.name)
        if self._validation is None or self._validation.rows is None or reference is None:
            return None
        plan, _ = index_input(self._validation.rows, VALIDATION_SHARD_ROWS, self._ledger, self._cluster, self._phase)
        scoring = ScoreJob(
            name=job.name,
            model=ModelSpec(path=job.model.path or "-"),
            task=job.task,
            input=self._validation.rows,
            output=OutputSpec(path=job.output.path),
            seed=job.seed,
        )
        task = TASKS[job.task.name]
        available = columns_of(scoring, plan).schema.names
        optional = [name for name in task.optional_columns if name in available]
        columns = (*task.required_columns(job.task), *optional)
        if reference not in available:
            return None
        return ValidationRows(plan, row_reader(scoring, plan), columns, reference)

    def _facts(self, head: Head) -> ResultFacts:
        job, checked = self._job, self._checked
        return ResultFacts(
            kind="train",
            name=job.name,
            base=None if checked.source is None or job.model.config else BaseFacts.of(checked.source),
            method=job.method.model_dump(mode="json"),
            adapter=None if job.method.name == "full" else AdapterFacts(merged=False, method="LORA"),
            task=job.task.model_dump(mode="json", exclude_defaults=True) | {"name": job.task.name},
            labels=head.labels,
            tokenizer_fingerprint=checked.tokenizer_facts.fingerprint,
            chat_template_fingerprint=checked.tokenizer_facts.template,
            data_fingerprint=self._train.tokens.source,
            data=data_names(job.input.train),
            spec=dump(job.model_dump(mode="json")),
            versions=versions(),
        )


def data_names(spec: InputSpec) -> tuple[str, ...]:
    """Where rows come from, hub data sets in the words of `ResultFacts.data`."""
    names = {path: hub_name(path) if spec.format == "huggingface" else None for path in spec.path}
    return tuple(path if name is None else f"{HUB_DATA}{name}" for path, name in names.items())
