"""Chats over HTTP: section `served` of benchmarks/generate.py."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmarks import serve_chat
from benchmarks.generate_models import DTYPE, DTYPE_NAME, Request, llama, requests, save
from benchmarks.generate_steps import linear_s
from benchmarks.measure import ROUNDS, ratio, table

NUM_REQUESTS = 144
BOUND_ROWS = 64  # of a step, prompts and all


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
    print(
        f"With nothing else to do, the model's linear layers over all these prompts and texts, {BOUND_ROWS} tokens at "
        f"a time, would come to {_bound(asked):.0f} tokens/s; the median prompt has "
        f"{statistics.median(len(prompt) for prompt, _ in asked):.0f} tokens, the median text "
        f"{statistics.median(new for _, new in asked):.0f}.\n"
    )


def _bound(asked: Sequence[Request]) -> float:
    """New tokens a second of matrix products alone. Scores over the vocabulary are needed for new tokens only."""
    model = llama(serve_chat.SHAPE, DTYPE)
    body_s, head_s = (linear_s(part, BOUND_ROWS, DTYPE) / BOUND_ROWS for part in (model.model, model.lm_head))
    new = sum(new for _, new in asked)
    return new / (body_s * (new + sum(len(prompt) for prompt, _ in asked)) + head_s * new)


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
