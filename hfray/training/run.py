"""One rank's part of a training run, from the model's load to the result's files. Puts the pieces of this package
together; knows processes that are one group already, not who started them.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from hfray.data.publish import draft_folder, publish
from hfray.errors import EngineError
from hfray.models.adapter import body_of
from hfray.models.info import model_info
from hfray.models.model_card import model_card
from hfray.models.quantization import num_weights, spare_all_layers
from hfray.models.result import ResultFacts, write_facts
from hfray.models.result_files import CURVE_FILE, LAST
from hfray.models.tokenizers import load_tokenizer
from hfray.models.trainable import load_trainable, training_config
from hfray.scratch import make_own_folder
from hfray.spec.methods import QloraSpec
from hfray.tasks import TASKS
from hfray.tasks.base import ModelInfo, Processor, Task
from hfray.training import failures
from hfray.training.accumulation import accumulation
from hfray.training.arguments import training_arguments
from hfray.training.batches import Packed
from hfray.training.checkpoints import Checkpoints
from hfray.training.collective import together
from hfray.training.counting import count_for
from hfray.training.curves import keep_curves, show_curves
from hfray.training.evaluation import PERPLEXITY_TASKS, Evaluator, Rank
from hfray.training.loading import Collate, train_loader
from hfray.training.order import MicroBatches, SampleOrder
from hfray.training.peak import peak_of
from hfray.training.position import Position
from hfray.training.saving import save_model, whole_state
from hfray.training.setup import Examples, TrainSetup
from hfray.training.tokens import TokenExamples
from hfray.training.trainer import RunTrainer

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Tick = Callable[[Position, float | None], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What rank 0 has to say at the end, as plain values. files: that were published, with their sizes in bytes; facts:
    of the result (`ResultFacts`); position: where the run has ended (`Position`)."""

    files: dict[str, int]
    facts: dict[str, Any]
    position: dict[str, Any]
    trainable: int
    device: str
    peak_flops: float
    peak_source: str


def run(setup: TrainSetup, rank: Rank, tick: Tick) -> Outcome | None:
    """Trains from the last checkpoint on. None on all ranks but the first. Raises HfrayError; what is left is the loss
    of a worker or of a device, after which new workers may go on."""
    import deepspeed

    torch.set_num_threads(setup.threads)
    # Made for inference; it would be compiled first, for minutes.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # Before the model is made: ZeRO-3 divides its weights among the ranks that there are then.
    deepspeed.init_distributed(dist_backend="nccl" if setup.on_gpu else "gloo", verbose=False)
    with failures.told(), tempfile.TemporaryDirectory(prefix="hfray-train-") as scratch:
        return _Session(setup, rank, tick, Path(scratch)).run()


class _Session:
    """What a trainer asks of its surroundings."""

    def __init__(self, setup: TrainSetup, rank: Rank, tick: Tick, scratch: Path) -> None:
        self._setup = setup
        self._rank = rank
        self._tick = tick
        self._scratch = scratch
        self._checkpoints = Checkpoints(
            setup.ledger.storage,
            setup.ledger.fingerprint,
            setup.checkpoint_key,
            scratch,
            rank=rank.rank,
            world_size=rank.world_size,
            seed=setup.seed,
        )
        self._evaluator: Evaluator | None = None
        self._tokenizer = load_tokenizer(setup.model.tokenizer.located())

    def run(self) -> Outcome | None:
        setup, rank = self._setup, self._rank
        if rank.rank == 0:
            show_curves(setup.ledger.storage, self._scratch)
        arguments = training_arguments(setup, rank.world_size, self._scratch / "trainer")
        model = self._model()
        trained = TokenExamples(
            setup.examples.path, setup.examples.split, columns=setup.examples.columns, spool=self._spool
        )
        self._evaluator = self._make_evaluator(model)
        position = self._checkpoints.position()
        if position.world_sizes:
            position.resumed_from.append(position.step)
        position.world_sizes.append(rank.world_size)
        trainer = RunTrainer(
            model,
            arguments,
            schedule=setup.schedule,
            cadence=setup.cadence,
            loader=lambda samples: train_loader(
                trained, self._batches(samples, trained), self._collate(setup.examples, model)
            ),
            count=count_for(setup.examples.collator),
            surroundings=self,
            position=position,
            early_stopping=setup.early_stopping,
        )
        trainer.train()
        with together(f"curves in {setup.ledger.url}"):
            if rank.rank == 0:
                keep_curves(setup.ledger.storage, self._scratch)
        if setup.cadence.load_best and trainer.position.best_step not in (None, trainer.position.step):
            self._checkpoints.restore_best(trainer.model_wrapped, trainer.position.best_step)
        facts = self._result_facts(trainer)
        files = self._publish(trainer, facts)
        shutil.rmtree(self._spool, ignore_errors=True)
        if rank.rank:
            return None
        peak = peak_of(rank.device, setup.model.precision)
        return Outcome(
            files=files,
            facts=facts.model_dump(mode="json"),
            position=trainer.position.as_record(),
            trainable=sum(_numel(each) for each in model.parameters() if each.requires_grad),
            device=torch.cuda.get_device_name(rank.device) if rank.device.type == "cuda" else "cpu",
            peak_flops=peak.flops,
            peak_source=peak.source,
        )

    # -- what the trainer asks for

    def restore(self, trainer: RunTrainer) -> None:
        self._checkpoints.restore(trainer.model_wrapped)

    def save(self, trainer: RunTrainer) -> None:
        self._checkpoints.save(trainer.model_wrapped, trainer.position, trainer.samples, keep=self._setup.cadence.keep)

    def evaluate(self, trainer: RunTrainer) -> dict[str, float]:
        if self._evaluator is None:
            raise EngineError("there is nothing to evaluate on; this is a mistake in hfray")
        return self._evaluator.evaluate(trainer.model, gathered=zero_stage(trainer) == 3)

    def tick(self, position: Position, loss: float | None) -> None:
        self._tick(position, loss)

    # -- the parts

    def _model(self) -> Any:
        setup = self._setup.model
        source = None if setup.source is None else setup.source.located()
        config = training_config(setup.spec, source, setup.head, setup.vocabulary)
        self._config = copy.deepcopy(config)
        model = load_trainable(
            setup.spec,
            setup.method,
            source,
            config,
            setup.head.auto_model,
            dtype=_DTYPES[setup.precision],
            device=self._rank.device,
            seed=self._setup.seed,
            targets=setup.targets,
            checkpointing=bool(self._setup.trainer.get("activation_checkpointing")),
        )
        if isinstance(setup.method, QloraSpec):
            spare_all_layers(model)
        return model

    def _batches(self, samples: int, trained: TokenExamples) -> MicroBatches:
        setup, length = self._setup, self._setup.schedule.length
        padded = setup.examples.collator.padded
        return MicroBatches(
            SampleOrder(length.num_examples, setup.seed),
            setup.micro_batch_size,
            accumulation(self._global_batch_size, setup.micro_batch_size, self._rank.world_size),
            self._rank.world_size,
            self._rank.rank,
            stop=length.stop,
            position=samples,
            lengths=(lambda numbers: trained.lengths(numbers.tolist(), padded)) if padded else None,
        )

    def _collate(self, examples: Examples, model: Any) -> Collate:
        separation = self._setup.model.separation if isinstance(examples.collator, Packed) else None
        return Collate(examples.collator, separation, model.dtype)

    def _make_evaluator(self, model: Any) -> Evaluator | None:
        setup = self._setup
        if setup.validation is None:
            return None
        task_class = TASKS[setup.task.name]
        processor = Processor(tokenizer=self._tokenizer)
        info = self._info(model)
        task: Task | None = None
        if setup.rows is not None:
            task = task_class(setup.task, processor, info)
        return Evaluator(
            rank=self._rank,
            examples=TokenExamples(
                setup.validation.path, setup.validation.split, columns=setup.validation.columns, spool=self._spool
            ),
            collate=self._collate(setup.validation, model),
            micro_batch_size=int(setup.trainer.get("per_device_eval_batch_size", setup.micro_batch_size)),
            task=task,
            rows=setup.rows,
            processor=processor,
            info=info,
            pad_token_id=setup.model.vocabulary.pad_token_id or 0,
            perplexity=setup.task.name in PERPLEXITY_TASKS,
        )

    def _info(self, model: Any) -> ModelInfo:
        source = (self._setup.model.source or self._setup.model.tokenizer).located()
        return model_info(source, model.config, tokenizer=self._tokenizer)

    @cached_property
    def _spool(self) -> Path:
        """Decoded examples, for all processes of one machine; removed when the run has ended well."""
        folder = make_own_folder() / "blocks" / self._setup.ledger.fingerprint[:16]
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _publish(self, trainer: RunTrainer, facts: ResultFacts) -> dict[str, int]:
        """The result at the top of the output: name to size in bytes, on rank 0."""
        setup, is_first = self._setup, self._rank.rank == 0
        source = setup.model.source
        what = f"result in {setup.ledger.url}"
        folder: Path | None = None
        files: dict[str, int] = {}
        with ExitStack() as stack:
            with together(what):
                if is_first:
                    folder = stack.enter_context(draft_folder(setup.ledger))
            model, state = trainer.model, whole_state(trainer.model, keep=is_first)
            with together(what):
                if folder is not None:
                    save_model(model, state, folder, config=self._config, tokenizer=self._tokenizer, source=source)
                    write_facts(folder, facts)
                    card = model_card(facts, title=setup.name, curve=CURVE_FILE)
                    (folder / "README.md").write_text(card, encoding="utf-8")
                    files = publish(setup.ledger, folder, LAST)
        return files

    def _result_facts(self, trainer: RunTrainer) -> ResultFacts:
        position = trainer.position
        best = position.best_step if self._setup.cadence.load_best else None
        evaluated = [each for each in position.evaluations if each.step == (best or position.step)]
        body = body_of(trainer.model)
        return self._setup.facts.model_copy(
            update={
                "architecture": type(body).__name__,
                "parameters": sum(_numel(each) for each in trainer.model.parameters()),
                "dtype": str(body.dtype).removeprefix("torch."),
                "metrics": dict(evaluated[-1].metrics) if evaluated else {},
                "training": {"steps": position.step, "tokens": position.counts.tokens, "seconds": position.seconds},
            }
        )

    @property
    def _global_batch_size(self) -> int:
        return self._setup.schedule.length.global_batch_size


def zero_stage(trainer: Any) -> int:
    """Of a trainer whose model is in DeepSpeed's hands."""
    engine = getattr(trainer, "deepspeed", None)
    return 0 if engine is None else int(engine.zero_optimization_stage())


def _numel(parameter: Any) -> int:
    """Of a weight that may be in 4 bits, or divided among ranks."""
    return int(getattr(parameter, "ds_numel", 0)) or num_weights(parameter)
