"""Transformers' own `Trainer` with DeepSpeed, saved by a callback and continued by one, as the worker function does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hfray.training.state import load_state, save_state
from tests.training.state_jobs import KEY, SIZE

STEPS, SAVED_STEP = 5, 2
_MICRO_BATCH, _ACCUMULATION, _VOCABULARY = 2, 2, 50


def train(rank: int, world_size: int, plan: dict[str, Any]) -> dict[str, Any]:
    """plan: `stage`, `folder` (of the checkpoint), `resume`. Gives loss, norm of gradients and rate of each step."""
    import transformers

    from hfray.training.deepspeed import BatchShape, config_for

    folder = Path(plan["folder"])
    batch = BatchShape(world_size * _MICRO_BATCH * _ACCUMULATION, _MICRO_BATCH, _ACCUMULATION)
    config = config_for(plan["stage"], batch, SIZE, precision="bf16", max_grad_norm=1.0, on_gpu=False)
    arguments = transformers.TrainingArguments(
        output_dir=str(folder.parent / "output"), use_cpu=True, bf16=True, max_steps=STEPS, save_strategy="no",
        per_device_train_batch_size=_MICRO_BATCH, gradient_accumulation_steps=_ACCUMULATION, logging_strategy="no",
        report_to=[], disable_tqdm=True, weight_decay=0.01, learning_rate=1e-2, lr_scheduler_type="cosine",
        deepspeed=config,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=_VOCABULARY, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20,
            max_position_embeddings=16, num_labels=3,
        )
    )  # fmt: skip
    where = {"rank": rank, "world_size": world_size, "key": KEY}
    found: dict[str, Any] = {"steps": {}}

    class Checkpoints(transformers.TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            found["optimizer"] = type(trainer.model_wrapped.optimizer.optimizer).__name__
            if plan["resume"]:
                extra = load_state(folder, trainer.model_wrapped, **where)
                trainer.lr_scheduler.load_state_dict(extra["scheduler"])
                state.global_step = extra["step"]

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            norm = trainer.model_wrapped.get_global_grad_norm()
            rates = [group["lr"] for group in trainer.model_wrapped.basic_optimizer.param_groups]
            found["steps"][state.global_step] = [float(norm or 0), rates]

        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            if state.global_step == SAVED_STEP:
                extra = {"scheduler": trainer.lr_scheduler.state_dict(), "step": state.global_step}
                save_state(folder, trainer.model_wrapped, extra=extra, **where)

    class OwnTrainer(transformers.Trainer):
        def get_train_dataloader(self) -> Any:
            first = SAVED_STEP if plan["resume"] else 0
            rows = [
                {"input_ids": torch.randint(0, _VOCABULARY, (8,), generator=generator), "labels": number % 3}
                for number in range(first * _MICRO_BATCH * _ACCUMULATION, STEPS * _MICRO_BATCH * _ACCUMULATION)
                if (generator := torch.Generator().manual_seed(number * world_size + rank))
            ]
            return torch.utils.data.DataLoader(rows, batch_size=_MICRO_BATCH, generator=torch.Generator())

    trainer = OwnTrainer(model=model, args=arguments, callbacks=[Checkpoints()])
    trainer.train()
    save_state(folder.with_name(f"end-{plan['resume']}"), trainer.model_wrapped, extra={}, **where)
    return found
