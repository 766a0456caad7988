"""Chats through an endpoint against the engine alone: section `chat` of benchmarks/serve.py."""

from __future__ import annotations

import asyncio
import csv
import itertools
import json
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks.generate_models import TRACE, Request, item_of, requests
from benchmarks.measure import ROOT, ROUNDS, table

SHAPE = "28 M"
STREAMS = 8
NUM_ARRIVING = 128
NUM_DISTINCT = 600
SHARES = (0.5, 0.8, 1.0)
RUN_S = 25
CHATS = """local bodies={%s}
local number, thread_of = 0, nil
tokens, answers = 0, 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
setup = function(thread) thread_of = thread end
request = function()
  number = number %% #bodies + 1
  return wrk.format(nil, nil, nil, bodies[number])
end
response = function(status, headers, body)
  tokens = tokens + tonumber(body:match('"completion_tokens": ?(%%d+)'))
  answers = answers + 1
end
done = function(summary)
  local told = "%%d tokens of %%d requests in %%f s"
  print(told:format(thread_of:get("tokens"), thread_of:get("answers"), summary.duration / 1e6))
end
"""
ENGINE = {"name": "continuous", "max_running": STREAMS}


def spec(path: Path) -> dict[str, Any]:
    return {
        "model": {"path": str(path)},
        "task": {"name": "text-generation", "input": "messages"},
        "engine": ENGINE,
        "resources": {"cpus": 2},
    }


def body(request: Request, model: str) -> dict[str, Any]:
    prompt, new = request
    text = " ".join(f"w{token}" for token in prompt)
    return {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": new, "stream": True}


def alone(path: Path, number: int) -> float:
    """Tokens a second of the engine in a process of its own, with as many texts at once as there are streams; on the
    requests that the endpoint is asked first in the same round."""
    command = [sys.executable, "-m", "benchmarks.serve_chat", str(path), str(number)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def _of_round(number: int, count: int) -> list[Request]:
    """Different ones in each round: what an engine has seen it need not read again."""
    return requests(count, skip=number * NUM_DISTINCT)


async def _stream(client: httpx.AsyncClient, url: str, request: Request, model: str) -> tuple[float, int]:
    """(seconds to the first text, tokens)."""
    started, first = time.perf_counter(), 0.0
    async with client.stream("POST", url, json=body(request, model)) as response:
        if response.status_code != 200:
            sys.exit(f"{url} answers {response.status_code}: {(await response.aread()).decode()}")
        async for line in response.aiter_lines():
            if line.startswith("data: {") and '"content":"w' in line and not first:
                first = time.perf_counter() - started
            if '"error"' in line:
                sys.exit(line)
    if not first:
        sys.exit(f"{url} ended a stream without a text")
    return first, request[1]


async def closed(url: str, asked: list[Request], model: str = "chat") -> tuple[float, float]:
    """(tokens a second, requests a second) with a fixed number of streams."""
    waiting = list(asked)
    async with httpx.AsyncClient(timeout=300) as client:
        started = time.perf_counter()

        async def one() -> None:
            while waiting:
                await _stream(client, url, waiting.pop(0), model)

        await asyncio.gather(*(one() for _ in range(STREAMS)))
        seconds = time.perf_counter() - started
    return sum(new for _, new in asked) / seconds, len(asked) / seconds


async def _open(url: str, asked: list[Request], per_s: float) -> list[float]:
    """Seconds to the first text, of requests that arrive as in the trace, at a mean rate."""
    gaps = arrivals(len(asked))
    scale = len(asked) / per_s / sum(gaps)
    async with httpx.AsyncClient(timeout=300) as client:
        tasks = []
        for request, gap in zip(asked, gaps, strict=True):
            await asyncio.sleep(gap * scale)
            tasks.append(asyncio.create_task(_stream(client, url, request, "chat")))
        return [first for first, _ in await asyncio.gather(*tasks)]


def arrivals(count: int) -> list[float]:
    """Seconds between requests of the trace."""
    with TRACE.open() as file:
        stamps = [line["TIMESTAMP"][:26] for line in list(csv.DictReader(file))[: count + 1]]
    times = [datetime.fromisoformat(stamp) for stamp in stamps]
    return [(after - before).total_seconds() for before, after in itertools.pairwise(times)]


def loaded(url: str, script: Path) -> tuple[float, float]:
    """(tokens a second, requests a second) with a fixed number of streams, asked by wrk."""
    command = ["wrk", "-t1", f"-c{STREAMS}", f"-d{RUN_S}s", "--timeout", "60s", "-s", str(script), url]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"(\d+) tokens of (\d+) requests in ([\d.]+) s", done.stdout)
    if found is None or "Non-2xx" in done.stdout:
        sys.exit(done.stdout)
    tokens, answered, seconds = map(float, found.groups())
    return tokens / seconds, answered / seconds


def chats(asked: list[Request], folder: Path) -> Path:
    """The requests as a script of wrk, one after another and again, which counts the tokens of whole answers."""
    bodies = [body(each, "chat") | {"stream_options": {"include_usage": True}} for each in asked]
    path = folder / "chats.lua"
    path.write_text(CHATS % ",".join(json.dumps(json.dumps(each)) for each in bodies))
    return path


def measure(url: str, path: Path, folder: Path) -> None:
    asyncio.run(closed(url, requests(STREAMS, skip=ROUNDS * NUM_DISTINCT)))
    rates: dict[str, list[float]] = {"engine alone": [], "endpoint": []}
    capacity: list[float] = []
    for number in range(ROUNDS):
        rates["engine alone"].append(alone(path, number))
        tokens, per_s = loaded(url, chats(_of_round(number, NUM_DISTINCT), folder))
        rates["endpoint"].append(tokens)
        capacity.append(per_s)
    share = statistics.median(b / a for a, b in zip(*rates.values(), strict=True))
    rows = [[name, f"{statistics.median(each):.0f}"] for name, each in rates.items()]
    rows[0].append("1.00")
    rows[1].append(f"{share:.2f}")
    table(f"Chats, Llama of {SHAPE}, {STREAMS} streams", ["side", "tokens/s", "of the engine alone"], rows)
    rows = []
    for number, part in enumerate(SHARES, start=ROUNDS + 1):
        asked = _of_round(number, NUM_ARRIVING)
        firsts = sorted(asyncio.run(_open(url, asked, part * statistics.median(capacity))))
        rows.append([f"{part:.0%}", f"{firsts[len(firsts) // 2]:.2f}", f"{firsts[int(0.99 * len(firsts))]:.2f}"])
    table("Time to the first text, arrivals of the trace", ["of capacity", "median s", "99 % s"], rows)


def main(path: str, number: str) -> None:
    """The engine alone; prints tokens a second. One text takes the place of another, as behind the endpoint."""
    import torch

    from hfray.engines.continuous.engine import ContinuousEngine
    from hfray.engines.threads import in_brief_thread
    from hfray.models.load import load_model
    from hfray.spec.sections import ModelSpec
    from hfray.tasks import TASKS

    torch.set_num_threads(2)
    model = in_brief_thread(load_model, ModelSpec(path=path), TASKS["text-generation"])
    engine = in_brief_thread(ContinuousEngine, model, max_running=STREAMS)
    engine.run([item_of(each) for each in requests(STREAMS, skip=ROUNDS * NUM_DISTINCT)])
    waiting = itertools.cycle(_of_round(int(number), NUM_DISTINCT))  # and again, as wrk asks them
    deadline_s = time.perf_counter() + RUN_S

    def tokens() -> int:
        """Of whole answers alone, as wrk counts them."""
        written = 0
        for request in waiting:
            engine.submit([item_of(request)]).result()
            if time.perf_counter() > deadline_s:
                break
            written += request[1]
        return written

    with ThreadPoolExecutor(STREAMS) as streams:
        each = [streams.submit(tokens) for _ in range(STREAMS)]
    engine.close()
    print(json.dumps(sum(written.result() for written in each) / RUN_S))


if __name__ == "__main__":
    main(*sys.argv[1:])
