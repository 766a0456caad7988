"""`kind: train`: rows or tokens to a tuned model, under Ray Train.

Knows every layer below; holds no logic that belongs to one of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import hfray
from hfray.data.lease import Lease
from hfray.data.ledger import CHECKPOINTS, Ledger
from hfray.data.tokens import Tokens, read_tokens
from hfray.errors import EngineError, SpecError
from hfray.kinds.check import OtherJobError, refuse_other_job
from hfray.kinds.cluster import Cluster
from hfray.kinds.published import ModelRun
from hfray.kinds.ray_errors import as_hfray_error
from hfray.kinds.report import ModelFacts, Report
from hfray.kinds.tokenize import TokenizeRun
from hfray.kinds.train_check import CheckedTraining, check_labels, check_training
from hfray.kinds.train_setup import Settled, SetupMaker
from hfray.kinds.train_tokens import Tokenised, given_tokens, tokenize_job
from hfray.kinds.training_board import TrainingWatch, lost_workers, watched_training
from hfray.kinds.training_curve import curve_svg
from hfray.models.result_files import CURVE_FILE
from hfray.spec.fields import fingerprint
from hfray.spec.sections import InputSpec
from hfray.spec.train import TrainJob, training_identity
from hfray.training.accumulation import accumulation
from hfray.training.checkpoints import latest_step, sweep
from hfray.training.facts import TrainingFacts
from hfray.training.flops import flops_per_token
from hfray.training.position import Position
from hfray.training.run import Outcome
from hfray.training.setup import TrainSetup
from hfray.training.worker import train_worker

RAY_FOLDER = "_work/ray"
"""Where Ray Train keeps what it knows of a run."""
START_TIMEOUT_S = 600


class TrainRun(ModelRun[TrainJob]):
    """One run of a training job."""

    _checked: CheckedTraining
    _train: Tokenised
    _validation: Tokenised | None = None

    def run(self, *, restart: bool, retry_errors: bool) -> Report:
        if retry_errors:
            raise SpecError("--retry-errors: a training job has no results to be tried again; mend the data")
        self._restart = restart
        return super().run(restart=restart, retry_errors=False)

    def _check(self) -> TrainJob:
        self._checked = check_training(self._job)
        if self._checked.note:
            self._progress.note(self._checked.note)
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
        self._train = self._tokens("train", self._job.input.train, self._checked.train_tokens)
        validation = self._job.input.validation
        if validation is not None:
            self._validation = self._tokens("validation", validation, self._checked.validation_tokens)
            check_labels(self._train.tokens, self._validation.tokens)
        identity["tokens"] = self._train.tokens.fingerprint
        if self._validation is not None:
            identity["validation"] = self._validation.tokens.fingerprint
        self._fingerprint = fingerprint(identity)
        self._identity = identity | {"fingerprint": self._fingerprint}
        self._ledger = self._output(self._fingerprint)

    def _refuse_other(self, ledger: Ledger, before: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        known = {key: before.get(key) for key in ("tokens", "validation") if key in before}
        merged = {**identity, **known}
        refuse_other_job(ledger, merged | {"fingerprint": fingerprint(merged)})

    def _tokens(self, part: str, spec: InputSpec, given: Tokens | None) -> Tokenised:
        """A tokenised folder: the one that is given, or what the tokenize job makes of rows."""
        if given is not None:
            return given_tokens(part, spec, given)
        # An index means the same name in both parts.
        labels = self._train.tokens.labels if part == "validation" else None
        job = tokenize_job(self._checked, part, spec, labels)
        run = TokenizeRun(job, self._progress, job_path=self._job_path, log_path=self._log_path, debug=self._debug)
        self._progress.begin()
        self._progress.phase(f"tokenising {part}")
        try:
            run.run(restart=False, retry_errors=False)
        except OtherJobError:
            if not self._restart:
                raise
            run.run(restart=True, retry_errors=False)
        tokens = read_tokens(job.output.path)
        return Tokenised(job.output.path, tokens.splits[0].name, tokens, spec)

    # -- the run

    def _work(self, ray_cluster: Cluster, lease: Lease, *, retry_errors: bool) -> Report:
        self._connect(ray_cluster)
        ray_cluster.probe([], self._ledger.storage)
        sweep(self._ledger.storage, self._fingerprint)
        first_step = latest_step(self._ledger.storage, self._fingerprint)
        settled = SetupMaker(
            self._checked, self._train, self._validation, self._ledger, ray_cluster, self._progress.phase
        ).settle()
        setup = settled.setup
        self._progress.note(f"deepspeed: {settled.plan.choice.reason}")
        self._progress.begin()
        self._progress.total(setup.schedule.length.num_steps, "steps")
        self._progress.phase("starting workers")
        try:
            with watched_training(self._progress, ray_cluster.check_room) as watch:
                outcome = self._fit(setup, watch)
        except Exception as error:
            raise as_hfray_error(error) from error
        self._progress.phase("finishing")
        lease.check()
        self._model = self._model_facts(setup, outcome).model_dump()
        report = self._report(
            "complete",
            "",
            task=self._job.task.name,
            first_step=first_step,
            size_bytes=sum(outcome.files.values()),
            metrics=outcome.facts["metrics"],
            training=self._training_facts(settled, outcome, failures=watch.standing.failures),
        )
        if report.training is not None:
            self._ledger.write(CURVE_FILE, curve_svg(report.training).encode())
        self._write_report(report)
        extra = {"hfray": hfray.__version__, "files": outcome.files}
        self._ledger.write_success(self._fingerprint, [], {}, extra)
        self._ledger.sweep_attempts()
        for folder in (CHECKPOINTS, RAY_FOLDER):
            self._ledger.storage.delete_prefix(folder)
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
        filesystem, ray_path = self._ledger.storage.for_arrow(RAY_FOLDER)
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"setup": setup, "board": watch.board},
            torch_config=TorchConfig(backend="nccl" if setup.on_gpu else "gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=(sizes[0], sizes[-1]) if len(sizes) > 1 else sizes[0],
                use_gpu=setup.on_gpu,
                resources_per_worker={key: value for key, value in resources.items() if value},
                label_selector=dict(workers.labels) or None,
            ),
            run_config=ray.train.RunConfig(
                name=f"{self._job.name}-{os.getpid()}",
                storage_path=ray_path,
                storage_filesystem=filesystem,
                failure_config=ray.train.FailureConfig(max_failures=self._job.max_failures),
                callbacks=[lost_workers(watch.board)],
            ),
        )
        outcome = trainer.fit().return_value
        if not isinstance(outcome, Outcome):
            raise EngineError("Ray Train ended without a result; this is a mistake in hfray")
        return outcome

    # -- what is told

    def _model_facts(self, setup: TrainSetup, outcome: Outcome) -> ModelFacts:
        job = self._job
        return ModelFacts(
            path=job.model.path or "from scratch",
            revision=job.model.revision,
            architecture=outcome.facts["architecture"],
            parameters=outcome.facts["parameters"],
            dtype={"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[setup.model.precision],
            device=outcome.device,
        )

    def _training_facts(self, settled: Settled, outcome: Outcome, *, failures: int) -> TrainingFacts:
        setup, choice = settled.setup, settled.plan.choice
        position = Position.from_record(outcome.position)
        return TrainingFacts(
            method=self._job.method.name,
            parameters=outcome.facts["parameters"],
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
            failures=failures,
            precision=setup.model.precision,
            device=outcome.device,
            deepspeed=choice.reason,
            expected_bytes=choice.estimate.device,
            flops_per_token=flops_per_token(
                settled.size, position.counts.mean_length, position.counts.mean_target_length
            ),
            peak_flops=outcome.peak_flops,
            peak_source=outcome.peak_source,
            metric_for_best=setup.cadence.metric if self._validation is not None else None,
            best_step=position.best_step,
            points=tuple(position.points),
            evaluations=tuple(position.evaluations),
        )
