"""Chats over HTTP: sections `served` and `bound` of benchmarks/generate.py."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmarks import serve_chat
from benchmarks.generate_models import DTYPE, DTYPE_NAME, llama, requests, save
from benchmarks.generate_steps import linear_s
from benchmarks.measure import ROUNDS, ratio, table

NUM_REQUESTS = 144
PROMPT_ROWS = 256  # of a step: `CPU_STEP_TOKENS`


def served(folder: Path) -> None:
    """The same model, the same streams, over OpenAI's protocol; each server as its users start it."""
    path = save(serve_chat.SHAPE, folder / "served", DTYPE)
    sides: dict[str, Callable[[], AbstractContextManager[str]]] = {
        "hfray serve": lambda: _ours(folder, path),
        "transformers serve": lambda: _theirs(path),
        "transformers serve --continuous-batching": lambda: _theirs(path, "--continuous-batching"),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    asked = requests(NUM_REQUESTS)
    for _ in range(ROUNDS):
        for name, start in sides.items():
            with start() as url:
                asyncio.run(serve_chat.closed(url, asked[: serve_chat.STREAMS], model=_name(name, path)))
                rates[name].append(asyncio.run(serve_chat.closed(url, asked, model=_name(name, path)))[0])
    ours = rates["hfray serve"]
    rows = [[name, f"{statistics.median(each):.0f}", f"{ratio(ours, each):.1f}x"] for name, each in rates.items()]
    title = f"Chats, Llama of {serve_chat.SHAPE}, {DTYPE_NAME}, {serve_chat.STREAMS} streams"
    table(title, ["server", "tokens/s", "hfray is faster by"], rows)


def bound() -> None:
    """What the model's linear layers alone allow over the requests of `served`."""
    model = llama(serve_chat.SHAPE, DTYPE)
    asked = requests(NUM_REQUESTS)
    prompt_tokens, new = sum(len(prompt) for prompt, _ in asked), sum(new for _, new in asked)
    read_s = prompt_tokens * linear_s(model.model, PROMPT_ROWS, DTYPE) / PROMPT_ROWS
    write_s = new * linear_s(model, serve_chat.STREAMS, DTYPE) / serve_chat.STREAMS
    title = f"The linear layers alone over these chats, {DTYPE_NAME}, prompts {PROMPT_ROWS} tokens at a time, texts"
    table(
        f"{title} {serve_chat.STREAMS}",
        ["prompts, tokens", "texts, tokens", "s for the prompts", "s for the texts", "tokens/s"],
        [[f"{prompt_tokens:,}", f"{new:,}", f"{read_s:.1f}", f"{write_s:.1f}", f"{new / (read_s + write_s):.0f}"]],
    )


def _name(side: str, path: Path) -> str:
    return "chat" if side == "hfray serve" else str(path)


@contextlib.contextmanager
def _ours(folder: Path, path: Path) -> Any:
    from benchmarks.serve_sides import PORT, endpoints

    with endpoints(folder, {"chat": serve_chat.spec(path)}):
        yield f"http://127.0.0.1:{PORT}/v1/chat/completions"


@contextlib.contextmanager
def _theirs(path: Path, *options: str) -> Any:
    from benchmarks.serve_sides import PORT, process

    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(path), "--port", str(PORT), *options]
    with process(command, {}, f"http://127.0.0.1:{PORT}/health"):
        yield f"http://127.0.0.1:{PORT}/v1/chat/completions"
