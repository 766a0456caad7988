"""`kind: train`: rows or tokens to a tuned model, under Ray Train.

Knows every layer below; holds no logic that belongs to one of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import hfray
from hfray.data.layout import Layout
from hfray.data.lease import Lease
from hfray.data.ledger import SUCCESS, Ledger
from hfray.data.publish import unpublish
from hfray.data.tokens import Tokens, read_tokens
from hfray.errors import EngineError, SpecError
from hfray.kinds.cluster import Cluster, as_hfray_error
from hfray.kinds.indexing import index_input
from hfray.kinds.job import JobRun
from hfray.kinds.report import ModelFacts, Report
from hfray.kinds.rows import columns_of, row_reader
from hfray.kinds.tokenize import TokenizeRun
from hfray.kinds.train_check import CheckedTraining, check_training, collator_of
from hfray.kinds.train_memory import worker_memory
from hfray.kinds.training_board import TrainingWatch, watched_training
from hfray.kinds.training_curve import curve_svg
from hfray.kinds.versions import versions
from hfray.models.result import AdapterFacts, BaseFacts, ResultFacts
from hfray.models.trainable import Head, training_config
from hfray.spec.fields import fingerprint
from hfray.spec.methods import QloraSpec
from hfray.spec.score import ScoreJob
from hfray.spec.sections import InputSpec, ModelSpec, OutputSpec
from hfray.spec.tokenize import TokenizeJob, TokenizerSpec, TokensSpec
from hfray.spec.train import TrainJob, training_identity
from hfray.spec.yaml_lines import dump
from hfray.tasks import TASKS
from hfray.tasks.features import MODES
from hfray.training.accumulation import accumulation
from hfray.training.batches import columns_read
from hfray.training.cadence import Cadence
from hfray.training.checkpoints import latest_step, sweep
from hfray.training.deepspeed import BatchShape
from hfray.training.facts import TrainingFacts
from hfray.training.flops import flops_per_token
from hfray.training.memory import Precision, Setting
from hfray.training.plan import DeepSpeedPlan, plan_deepspeed
from hfray.training.position import Position
from hfray.training.run import CURVE_FILE, LAST, Outcome
from hfray.training.savable import check_savable
from hfray.training.schedule import RunLength, Schedule
from hfray.training.secret import secret_key
from hfray.training.setup import Examples, ModelSetup, TrainSetup, ValidationRows
from hfray.training.size import AdapterShape, size_of
from hfray.training.worker import train_worker

TOKENS_FOLDER = "_work/tokens"
REFERENCES = {
    "text-classification": "label",
    "token-classification": "tags",
    "question-answering": "answers",
    "summarization": "target",
    "translation": "target",
    "text2text-generation": "target",
}
"""Task to the column of raw rows that holds what should come out."""
VALIDATION_SHARD_ROWS = 256
START_TIMEOUT_S = 600
NUM_EPOCHS = 3.0
LEARNING_RATE = 5e-5
"""What Transformers trains with where nothing is said."""


class TrainRun(JobRun[TrainJob]):
    """One run of a training job."""

    _checked: CheckedTraining
    _train: Tokenised
    _validation: Tokenised | None = None
    _outcome: Outcome | None = None
    _deepspeed: DeepSpeedPlan | None = None
    _first_step = 0
    """That this session went on from."""
    _failures_seen = 0

    def run(self, *, restart: bool, retry_errors: bool) -> Report:
        if retry_errors:
            raise SpecError("--retry-errors: a training job has no results to be tried again; mend the data")
        self._restart = restart
        return super().run(restart=restart, retry_errors=False)

    def _check(self) -> TrainJob:
        self._checked = check_training(self._job)
        return self._checked.job

    # -- the tokens

    def _make_plan(self, ledger: Ledger, ray_cluster: Cluster) -> None:
        before = ledger.identity()
        source = self._checked.source
        identity: dict[str, Any] = {
            "spec": training_identity(self._job),
            "model": dict(source.identity) if source is not None else {},
        }
        if before is not None and not self._restart:  # said before anything is tokenised
            self._refuse_other(ledger, before, identity)
        if self._checked.train_tokens is None or (
            self._job.input.validation is not None and self._checked.validation_tokens is None
        ):
            self._connect(ray_cluster)  # once, for the tokens of all parts and for the training
        self._train = self._tokens("train", self._job.input.train, self._checked.train_tokens, ray_cluster)
        validation = self._job.input.validation
        if validation is not None:
            self._validation = self._tokens("validation", validation, self._checked.validation_tokens, ray_cluster)
        identity["tokens"] = self._train.tokens.fingerprint
        if self._validation is not None:
            identity["validation"] = self._validation.tokens.fingerprint
        self._fingerprint = fingerprint(identity)
        self._identity = identity | {"fingerprint": self._fingerprint}
        self._ledger = self._output(self._fingerprint)

    def _refuse_other(self, ledger: Ledger, before: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        from hfray.kinds.check import refuse_other_job

        known = {key: before.get(key) for key in ("tokens", "validation") if key in before}
        merged = {**identity, **known}
        refuse_other_job(ledger, merged | {"fingerprint": fingerprint(merged)})

    def _tokens(self, part: str, spec: InputSpec, given: Tokens | None, ray_cluster: Cluster) -> Tokenised:
        """A tokenised folder: the one that is given, or what the tokenize job makes of rows."""
        if given is not None:
            names = [split.name for split in given.splits]
            wanted = spec.split or (part if part in names or len(names) > 1 else names[0])
            return Tokenised(spec.path[0], wanted, given, None)
        job = self._tokenize_job(part, spec)
        run = TokenizeRun(job, self._progress, job_path=self._job_path, log_path=self._log_path, debug=self._debug)
        self._progress.begin()
        self._progress.phase(f"tokenising {part}")
        try:
            run.run(restart=False, retry_errors=False)
        except SpecError as error:
            if not self._restart or "was begun with another job" not in str(error):
                raise
            run.run(restart=True, retry_errors=False)
        tokens = read_tokens(job.output.path)
        return Tokenised(job.output.path, tokens.splits[0].name, tokens, spec)

    def _tokenize_job(self, part: str, spec: InputSpec) -> TokenizeJob:
        job, checked = self._job, self._checked
        mode: Any = job.mode.model_dump() if job.mode is not None else _mode_of(job)
        if part == "validation" and self._train.tokens.labels and mode.get("labels", "auto") == "auto":
            mode["labels"] = self._train.tokens.labels  # an index means the same name in both
        folder = Ledger(job.output.path, "parquet", "").storage.url(f"{TOKENS_FOLDER}/{part}")
        return TokenizeJob(
            name=job.name,
            model=TokenizerSpec(path=checked.tokenizer_source.name, revision=checked.tokenizer_source.revision),
            task=job.task.name,
            mode=mode,
            max_length=checked.max_length,
            input=spec,
            output=TokensSpec(path=folder),
            workers=job.workers.model_copy(update={"min": 1, "max": None, "gpus": 0.0, "cpus": 1.0}),
            max_error_rate=job.max_error_rate,
            seed=job.seed,
        )

    # -- the run

    def _index(self, ledger: Ledger, ray_cluster: Cluster) -> dict[str, Any]:
        return {}

    def _output(self, fingerprint: str) -> Ledger:
        return Ledger(self._job.output.path, "parquet", fingerprint, layout=Layout("_work", "parquet"))

    def _claim(self, opening: Ledger, *, restart: bool) -> None:
        if restart:
            opening.delete(SUCCESS)
            unpublish(opening, LAST)
        super()._claim(opening, restart=restart)

    def _work(self, ray_cluster: Cluster, lease: Lease, *, retry_errors: bool) -> Report:
        self._connect(ray_cluster)
        ray_cluster.probe([], self._ledger.storage)
        sweep(self._ledger.storage, self._fingerprint)
        self._first_step = latest_step(self._ledger.storage, self._fingerprint)
        setup = self._setup(ray_cluster)
        self._progress.begin()
        self._progress.total(setup.schedule.length.num_steps, "steps")
        self._progress.phase("starting workers")
        try:
            with watched_training(self._progress, ray_cluster.check_room) as watch:
                self._outcome = self._fit(setup, watch)
        except Exception as error:
            raise as_hfray_error(error) from error
        self._failures_seen = max(0, watch.standing.groups - 1)
        self._progress.phase("finishing")
        lease.check()
        outcome = self._outcome
        self._model = self._model_facts(outcome).model_dump()
        report = self._report(
            "complete",
            "",
            task=self._job.task.name,
            first_step=self._first_step,
            size_bytes=sum(outcome.files.values()),
            metrics=self._result_metrics(outcome),
            training=self._training_facts(setup, outcome),
        )
        if report.training is not None:
            self._ledger.write(CURVE_FILE, curve_svg(report.training).encode())
        self._write_report(report)
        extra = {"hfray": hfray.__version__, "files": outcome.files}
        self._ledger.write_success(self._fingerprint, [], {}, extra)
        self._ledger.sweep_attempts()
        self._ledger.storage.delete_prefix("_work/checkpoints")
        return report

    def _connect(self, ray_cluster: Cluster) -> None:
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(START_TIMEOUT_S))
        if not ray_cluster.connected:
            self._progress.phase("starting ray")
        ray_cluster.connect()

    def _fit(self, setup: TrainSetup, watch: TrainingWatch) -> Outcome:
        import ray.train
        from ray.train.torch import TorchConfig, TorchTrainer

        workers, sizes = self._job.workers, self._checked.world_sizes
        resources: dict[str, float] = {"CPU": workers.cpus, "GPU": workers.gpus}
        if workers.memory_gb is not None:
            resources["memory"] = workers.memory_gb * 2**30
        elastic = len(sizes) > 1 and sizes == tuple(range(sizes[0], sizes[-1] + 1))
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"setup": setup, "board": watch.board},
            torch_config=TorchConfig(backend="nccl" if setup.on_gpu else "gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=(sizes[0], sizes[-1]) if elastic else sizes[0],
                use_gpu=setup.on_gpu,
                resources_per_worker={key: value for key, value in resources.items() if value},
            ),
            run_config=ray.train.RunConfig(
                name=f"{self._job.name}-{os.getpid()}",
                storage_path=self._ledger.storage.url("_work/ray"),
                failure_config=ray.train.FailureConfig(max_failures=self._job.max_failures),
            ),
        )
        outcome = trainer.fit().return_value
        if not isinstance(outcome, Outcome):
            raise EngineError("Ray Train ended without a result; this is a mistake in hfray")
        return outcome

    # -- what the workers get

    def _setup(self, ray_cluster: Cluster) -> TrainSetup:
        job, checked, tokens = self._job, self._checked, self._train.tokens
        length = RunLength.of(
            next(split.examples for split in tokens.splits if split.name == self._train.split),
            job.global_batch_size,
            float(checked.trainer.get("num_train_epochs", NUM_EPOCHS)),
            int(checked.trainer.get("max_steps", -1)),
        )
        cadence = Cadence.of(checked.trainer, length, has_validation=self._validation is not None)
        head = self._head(tokens)
        config = training_config(job.model, checked.source, head, checked.vocabulary)
        limit = tokens.max_length or checked.max_length
        precision, plans = self._plans(ray_cluster, config, head, limit)
        self._precision = precision
        self._deepspeed = plans[checked.world_sizes[0]]
        trainer = {**checked.trainer, **self._deepspeed.trainer}
        schedule = Schedule(
            str(trainer.get("lr_scheduler_type", "linear")),
            float(trainer.get("learning_rate", LEARNING_RATE)),
            length,
            float(trainer.get("warmup_steps", 0) or 0),
            trainer.get("lr_scheduler_kwargs") or {},
        )
        return TrainSetup(
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
                separation=checked.separation if tokens.packed else None,
            ),
            task=self._task_options(head),
            examples=self._examples(self._train, limit),
            validation=None if self._validation is None else self._examples(self._validation, limit),
            rows=None if self._generates_divided() else self._validation_rows(ray_cluster),
            schedule=schedule,
            micro_batch_size=job.micro_batch_size,
            trainer={key: value for key, value in trainer.items() if key not in ("bf16", "fp16", "max_steps")},
            deepspeed={size: plan.config for size, plan in plans.items()},
            cadence=cadence,
            early_stopping=job.early_stopping,
            seed=job.seed,
            gpus=job.workers.gpus,
            threads=max(1, int(job.workers.cpus)),
            checkpoint_key=secret_key(),
        )

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
        num_labels = largest_label(self._train) + 1
        return Head(auto_model, num_labels=num_labels, problem_type="single_label_classification")

    def _task_options(self, head: Head) -> Any:
        """The job's, with every score of a multi-label model: its metrics compare them all."""
        task = self._job.task
        if head.problem_type == "multi_label_classification" and getattr(task, "top_k", 0) is None:
            return task.model_copy(update={"top_k": "all"})
        return task

    def _plans(
        self, ray_cluster: Cluster, config: Any, head: Head, max_tokens: int | None
    ) -> tuple[Precision, dict[int, DeepSpeedPlan]]:
        """The precision, and DeepSpeed's configuration for every number of workers."""
        job, checked = self._job, self._checked
        targets = checked.targets
        shape = None
        if targets is not None:
            method: Any = job.method
            shape = AdapterShape(method.r, targets.layers, targets.whole, method.dora)
        size = size_of(config, head.auto_model, shape)
        memory_bytes, host_bytes = worker_memory(ray_cluster, job.workers, checked.world_sizes[-1])
        precision: Precision = (
            "bf16" if checked.trainer.get("bf16") else "fp16" if checked.trainer.get("fp16") else "fp32"
        )
        plans: dict[int, DeepSpeedPlan] = {}
        for world_size in checked.world_sizes:
            batch = BatchShape(
                job.global_batch_size,
                job.micro_batch_size,
                accumulation(job.global_batch_size, job.micro_batch_size, world_size),
            )
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
                job.deepspeed,
                size,
                setting,
                batch,
                checked.trainer,
                memory_bytes=memory_bytes,
                host_bytes=host_bytes,
            )
            check_savable(str(checked.trainer.get("optim", "adamw_torch")), plans[world_size].config)
        decided = plans[checked.world_sizes[0]].trainer
        if decided.get("bf16") is True:
            precision = "bf16"
        elif decided.get("fp16") is True:
            precision = "fp16"
        self._size = size
        return precision, plans

    def _generates_divided(self) -> bool:
        """Whether a text would be generated by a model whose weights are divided among ranks: they would have to make
        each token together."""
        divided = self._deepspeed is not None and self._deepspeed.choice.stage == 3
        return divided and TASKS[self._job.task.name].mode == "generate"

    def _validation_rows(self, ray_cluster: Cluster) -> ValidationRows | None:
        """Where the task's own metrics can be computed: rows that hold what should come out."""
        job, reference = self._job, REFERENCES.get(self._job.task.name)
        if self._validation is None or self._validation.rows is None or reference is None:
            return None
        plan, _ = index_input(
            self._validation.rows, VALIDATION_SHARD_ROWS, self._ledger, ray_cluster, self._progress.phase
        )
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

    # -- what is told

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
            data=tuple(job.input.train.path),
            spec=dump(job.model_dump(mode="json")),
            versions=versions(),
        )

    def _model_facts(self, outcome: Outcome) -> ModelFacts:
        job = self._job
        return ModelFacts(
            path=job.model.path or "from scratch",
            revision=job.model.revision,
            architecture=outcome.architecture,
            parameters=outcome.parameters,
            dtype={"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[self._precision],
            device=outcome.device,
        )

    def _result_metrics(self, outcome: Outcome) -> dict[str, Any]:
        evaluations = outcome.position["evaluations"]
        step = outcome.result_step
        return next((each["metrics"] for each in reversed(evaluations) if each["step"] == step), {})

    def _training_facts(self, setup: TrainSetup, outcome: Outcome) -> TrainingFacts:
        position = Position.from_record(outcome.position)
        plan = self._deepspeed
        return TrainingFacts(
            method=self._job.method.name,
            parameters=outcome.parameters,
            trainable=outcome.trainable,
            num_examples=setup.schedule.length.num_examples,
            num_steps=setup.schedule.length.num_steps,
            step=position.step,
            global_batch_size=self._job.global_batch_size,
            micro_batch_size=self._job.micro_batch_size,
            accumulation=accumulation(
                self._job.global_batch_size, self._job.micro_batch_size, position.world_sizes[-1]
            ),
            world_sizes=tuple(position.world_sizes),
            resumed_from=tuple(position.resumed_from),
            failures=self._failures_seen,
            precision=self._precision,
            device=outcome.device,
            deepspeed="" if plan is None else plan.choice.reason,
            expected_bytes=None if plan is None else plan.choice.estimate.device,
            flops_per_token=flops_per_token(
                self._size, position.counts.mean_length, position.counts.mean_target_length
            ),
            peak_flops=outcome.peak_flops,
            peak_source=outcome.peak_source,
            metric_for_best=setup.cadence.metric if self._validation is not None else None,
            best_step=position.best_step,
            points=tuple(position.points),
            evaluations=tuple(position.evaluations),
        )


@dataclass(frozen=True, slots=True)
class Tokenised:
    """Examples of one part of the input. rows: what they were made of, where that is known."""

    path: str
    split: str
    tokens: Tokens
    rows: InputSpec | None


def _mode_of(job: TrainJob) -> dict[str, Any]:
    """The task's own mode; what the task's options say of inputs (a prefix, languages) holds for examples too."""
    name = job.features_mode
    shared = (job.task.model_fields_set & MODES[name].Options.model_fields.keys()) - {"name"}
    return {"name": name} | {key: getattr(job.task, key) for key in sorted(shared)}


def largest_label(tokenised: Tokenised) -> int:
    """Of classes that have numbers only, told by the footers of the parts."""
    import pyarrow.compute as pc

    from hfray.training.blocks import open_part
    from hfray.training.tokens import TokenExamples

    examples = TokenExamples(tokenised.path, tokenised.split, columns=["labels"])
    storage, parts = Ledger(tokenised.path, "parquet", "").storage, examples.parts
    largest = 0
    for part in parts:
        reader = open_part(storage, part, ("labels",))
        for block in range(len(reader.starts) - 1):
            found = pc.max(reader.read(block).column("labels")).as_py()
            largest = max(largest, int(found or 0))
        reader.close()
    return largest
