"""What members of a process group do in the tests of checkpoints: train a tiny model with DeepSpeed, save, go on."""

from __future__ import annotations

import gc
import hashlib
import io
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import torch

from hfray.errors import HfrayError
from hfray.training.deepspeed import BatchShape, config_for
from hfray.training.hyperparameters import groups_of
from hfray.training.secret import SecretKey
from hfray.training.size import ModelSize
from hfray.training.slots import layout_of
from hfray.training.state import load_state, save_state

KEY = SecretKey(b"k" * 32)
SAVED_STEP, STEPS = 2, 4
GLOBAL_BATCH, ACCUMULATION, LENGTH, VOCABULARY = 12, 2, 8, 61
SIZE = ModelSize(10_000, 10_000, 8_000, 2_000, 2, 16, 2, VOCABULARY)


def run_plans(rank: int, world_size: int, plans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One after another, in this group. A plan: `cases`, each with name, stage, precision, method and more; `begin` (a
    folder to continue from, or null), `save` (where to save what is there after SAVED_STEP, or null), `end` (where to
    save the last step, or null)."""
    return [{case["name"]: _run_case(case, rank, world_size, plan) for case in plan["cases"]} for plan in plans]


def try_to_load(rank: int, world_size: int, plan: dict[str, Any]) -> list[str]:
    """What is said of each of the plan's `folders`; then a good one, `begin`, must load all the same."""
    engine = build(plan["case"], world_size)
    found = []
    for folder in plan["folders"]:
        try:
            load_state(Path(folder), engine, rank=rank, world_size=world_size, key=KEY)
            found.append("loaded")
        except HfrayError as error:
            found.append(f"{type(error).__name__}: {error}")
    load_state(Path(plan["begin"]), engine, rank=rank, world_size=world_size, key=KEY)
    return found


def die_while_saving(rank: int, world_size: int, plan: dict[str, Any]) -> None:
    """Rank `rank` of the plan is killed when it has written so many bytes."""
    engine = build(plan["case"], world_size)
    train(engine, 0, 1, rank, world_size)
    if rank == plan["rank"]:
        kill_after_bytes(plan["bytes"])
    save_state(Path(plan["folder"]), engine, rank=rank, world_size=world_size, key=KEY, extra={})


def kill_after_bytes(count: int) -> None:
    """Whatever this process writes from here on, to whichever file: the last bytes of so many are there, the next are
    not, and neither is the process."""
    left = [count]
    opened = io.open

    class Dying(io.FileIO):
        def write(self, content: Any) -> int:
            content = memoryview(content).cast("B")
            if len(content) >= left[0]:
                super().write(content[: left[0]])
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= len(content)
            return super().write(content)

    def dying(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
        if "w" not in mode:
            return opened(file, mode, buffering, *rest, **named)
        raw = Dying(file, "w")
        if "b" in mode:
            return raw if buffering == 0 else io.BufferedWriter(raw)
        return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8")

    io.open = dying


def _run_case(case: dict[str, Any], rank: int, world_size: int, plan: dict[str, Any]) -> dict[str, Any]:
    engine = build(case, world_size)
    where = {"rank": rank, "world_size": world_size, "key": KEY}
    losses: list[float] = []
    step, result = 0, {}
    if plan["begin"]:
        folder = Path(plan["begin"], case.get("from", case["name"]))
        # A state that nothing may be left of.
        train(engine, 90, 91, rank, world_size)
        extra = load_state(folder, engine, seed=7, **where)
        engine.lr_scheduler.load_state_dict(extra["scheduler"])
        step = extra["step"]
        result["loaded"] = digests(engine)
    else:
        losses += train(engine, 0, SAVED_STEP, rank, world_size)
        step = SAVED_STEP
        result["saved"] = digests(engine)
    if plan["save"]:
        extra = {"step": step, "scheduler": engine.lr_scheduler.state_dict()}
        save_state(Path(plan["save"], case["name"]), engine, extra=extra, position=step * GLOBAL_BATCH, **where)
    result["groups"] = groups_of(layout_of(engine))
    losses += train(engine, step, STEPS, rank, world_size)
    if plan["end"]:
        save_state(Path(plan["end"], case["name"]), engine, extra={}, **where)
    result |= {"losses": losses, "final": digests(engine), "kind": type(engine.optimizer).__name__}
    engine.destroy()
    del engine
    gc.collect()
    return result


def build(case: dict[str, Any], world_size: int) -> Any:
    """An engine over two groups of parameters: with decay, and without decay at another rate."""
    import deepspeed

    torch.manual_seed(3)
    model = _model(case)
    trained = [each for each in model.parameters() if each.requires_grad]
    matrices, vectors = [each for each in trained if each.dim() > 1], [each for each in trained if each.dim() < 2]
    groups = [
        {"params": matrices, "lr": 1e-2, "weight_decay": 0.01},
        {"params": vectors, "lr": 3e-3, "weight_decay": 0.0},
    ]
    optimizer = _optimizer(case.get("optimizer", "adamw"), [group for group in groups if group["params"]])
    batch = BatchShape(GLOBAL_BATCH, micro_batch(world_size), ACCUMULATION)
    config = config_for(case["stage"], batch, SIZE, precision=case["precision"], max_grad_norm=1.0, on_gpu=False)
    config["zero_optimization"] |= case.get("zero", {})
    config |= case.get("config", {})
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    torch.manual_seed(100 + torch.distributed.get_rank())
    return deepspeed.initialize(model=model, optimizer=optimizer, lr_scheduler=schedule, config=config)[0]


def micro_batch(world_size: int) -> int:
    return GLOBAL_BATCH // (world_size * ACCUMULATION)


def _model(case: dict[str, Any]) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32, attention_dropout=case.get("dropout", 0.0),
        attn_implementation="eager",
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    if case["method"] == "qlora":
        model = _quantized(model)
    if case["method"] != "full":
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=3, target_modules=["q_proj", "v_proj"], bias="none"))
    return model.train()


def _quantized(model: Any) -> Any:
    """In 4 bits, as `from_pretrained` does."""
    from peft import prepare_model_for_kbit_training
    from safetensors.torch import save_model
    from transformers import BitsAndBytesConfig

    with tempfile.TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)
        # `save_pretrained` writes on the first rank only.
        save_model(model, f"{folder}/model.safetensors", metadata={"format": "pt"})
        quantization = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
        model = type(model).from_pretrained(folder, quantization_config=quantization, device_map={"": "cpu"})
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def train(engine: Any, first: int, last: int, rank: int, world_size: int) -> list[float]:
    """The mean loss of each optimizer step."""
    found = []
    for step in range(first, last):
        rows = torch.randint(0, VOCABULARY, (GLOBAL_BATCH, LENGTH), generator=torch.Generator().manual_seed(step))
        total = torch.zeros(())
        for batch in rows.split(micro_batch(world_size))[rank::world_size]:
            loss = engine(input_ids=batch, labels=batch).loss
            total += loss.detach().float()
            engine.backward(loss)
            engine.step()
        torch.distributed.all_reduce(total)
        found.append(total.item() / (world_size * ACCUMULATION))
    return found


def digests(engine: Any) -> dict[str, str]:
    """Of every parameter and buffer of the model, frozen ones too, whole."""
    import deepspeed

    found = {}
    for name, parameter in engine.module.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
            found[name] = _digest(parameter)
    return found | {name: _digest(buffer) for name, buffer in engine.module.named_buffers()}


def _digest(tensor: Any) -> str:
    return hashlib.sha256(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()[:16]


def _optimizer(name: str, groups: list[dict[str, Any]]) -> Any:
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=0.9)
    if name == "rmsprop":
        return torch.optim.RMSprop(groups)
    if name == "fused":
        from deepspeed.ops.adam import FusedAdam

        return FusedAdam(groups)
    if name == "cpu":
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        return DeepSpeedCPUAdam(groups)
    return torch.optim.AdamW(groups, fused=True, betas=(0.9, 0.95))
