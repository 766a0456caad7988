"""Serving, measured: ratios of sides that ran in turn on the same cores.

    python benchmarks/serve.py                    everything, about fifteen minutes on two cores
    python benchmarks/serve.py classify ways      some sections: classify, ways, chat, cold, scale

Needs wrk. Prints the Markdown of docs/benchmarks.md. Machines differ and are shared: read the ratios.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import serve_chat
from benchmarks.generate_models import save
from benchmarks.measure import MODEL, ROOT, ROUNDS, run_sections, table
from benchmarks.texts import DATA

PORT = 8123
NUM_LABELS = 77
WARM_S, RUN_S = 2, 8
STARTS_S = 240


def classify(folder: Path) -> None:
    """A MiniLM classifier over banking77's questions, against the server of the tutorial."""
    model = classifier(folder)
    script = questions(folder)
    rates: dict[str, dict[int, list[tuple[float, float]]]] = {}
    for side in ("tutorial", "hfray, a replica of 2 threads", "hfray, 2 replicas"):
        rates[side] = {1: [], 32: []}
    for _ in range(ROUNDS):
        with tutorial(model):
            for connections in (1, 32):
                rates["tutorial"][connections].append(wrk(f"http://127.0.0.1:{PORT}/predict", script, connections))
        for side, changes in (
            ("hfray, a replica of 2 threads", {"replicas": 1, "resources": {"cpus": 2}}),
            ("hfray, 2 replicas", {"replicas": 2, "resources": {"cpus": 1}}),
        ):
            args = {"model": {"path": str(model), "dtype": "float32"}, "task": "text-classification", **changes}
            with endpoints(folder, {"intents": args}):
                for connections in (1, 32):
                    url = f"http://127.0.0.1:{PORT}/models/intents"
                    rates[side][connections].append(wrk(url, script, connections))
    rows = []
    for side, found in rates.items():
        cells = [side]
        for connections in (1, 32):
            per_s = statistics.median(rate for rate, _ in found[connections])
            p50_ms = statistics.median(p50 for _, p50 in found[connections])
            ratios = [
                ours / theirs
                for (ours, _), (theirs, _) in zip(found[connections], rates["tutorial"][connections], strict=True)
            ]
            cells += [f"{per_s:.0f}", f"{p50_ms:.0f}", f"{statistics.median(ratios):.2f}"]
        rows.append(cells)
    header = ["side", "1 connection: requests/s", "p50 ms", "of tutorial"]
    table("MiniLM classifier", [*header, "32 connections: requests/s", "p50 ms", "of tutorial"], rows)


def ways(folder: Path) -> None:
    """How a request may reach a replica, with nothing to compute there."""
    script = questions(folder)
    model = classifier(folder)
    found: dict[str, dict[int, list[tuple[float, float]]]] = {}
    for _ in range(ROUNDS):
        for side, env in (
            ("Ray Serve's proxy", {}),
            ("Ray Serve's proxy, throughput mode", {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}),
        ):
            with plain_serve(env):
                for connections in (1, 32):
                    measured = wrk(f"http://127.0.0.1:{PORT}/", script, connections)
                    found.setdefault(side, {}).setdefault(connections, []).append(measured)
        args = {"model": {"path": str(model)}, "task": "text-classification", "engine": {"name": "fake"}}
        with endpoints(folder, {"intents": args}):
            for connections in (1, 32):
                measured = wrk(f"http://127.0.0.1:{PORT}/models/intents", script, connections)
                found.setdefault("hfray's gateway, all of it", {}).setdefault(connections, []).append(measured)
    rows = []
    for side, each in found.items():
        cells = [side]
        for connections in (1, 32):
            cells.append(f"{statistics.median(rate for rate, _ in each[connections]):.0f}")
            cells.append(f"{statistics.median(p50 for _, p50 in each[connections]):.1f}")
        rows.append(cells)
    header = ["way", "1 connection: requests/s", "p50 ms", "32 connections: requests/s", "p50 ms"]
    table("No model", header, rows)


def chat(folder: Path) -> None:
    """Streams of a language model, against its engine alone."""
    path = save(serve_chat.SHAPE, folder / "chat")
    with endpoints(folder, {"chat": serve_chat.spec(path)}):
        serve_chat.measure(f"http://127.0.0.1:{PORT}/v1/chat/completions", path)


def cold(folder: Path) -> None:
    """From no process to the first answer."""
    args = {
        "model": {"path": MODEL, "dtype": "float32"}, "task": "feature-extraction",
        "replicas": {"min": 0, "max": 1, "downscale_delay_s": 1},
    }  # fmt: skip
    took: list[float] = []
    with endpoints(folder, {"minilm": args}) as pid:
        for _ in range(ROUNDS):
            wait_until(lambda: not replicas(pid, "minilm"), 60)
            started = time.perf_counter()
            answer = httpx.post(f"http://127.0.0.1:{PORT}/models/minilm", json={"inputs": "hello"}, timeout=120)
            answer.raise_for_status()
            took.append(time.perf_counter() - started)
    rows = [["MiniLM", f"{statistics.median(took):.1f}", f"{max(took):.1f}"]]
    table("From zero replicas to the first answer", ["model", "median s", "slowest s"], rows)


def scale(folder: Path) -> None:
    """Replicas follow a step of the load and go back."""
    model = classifier(folder)
    args = {
        "model": {"path": str(model)}, "task": "text-classification",
        "engine": {"name": "fake", "seconds_per_item": 0.02}, "resources": {"cpus": 0.2},
        "replicas": {"min": 1, "max": 4, "target_ongoing_requests": 8, "upscale_delay_s": 1, "downscale_delay_s": 5},
    }  # fmt: skip
    script = questions(folder)
    with endpoints(folder, {"intents": args}) as pid:
        url = f"http://127.0.0.1:{PORT}/models/intents"
        # Longer than it may take: with the end of the load replicas would go before all have come.
        load = subprocess.Popen(wrk_command(url, script, 32, 300), stdout=subprocess.DEVNULL)
        try:
            started = time.perf_counter()
            wait_until(lambda: len(replicas(pid, "intents")) >= 4, 240)
            up_s = time.perf_counter() - started
        finally:
            load.terminate()
            load.wait()
        started = time.perf_counter()
        wait_until(lambda: len(replicas(pid, "intents")) == 1, 90)
        down_s = time.perf_counter() - started
    rows = [["1 to 4", f"{up_s:.1f}"], ["4 to 1, 5 s of which are downscale_delay_s", f"{down_s:.1f}"]]
    table("Replicas after a step of the load", ["step", "s"], rows)


# -- sides


@contextlib.contextmanager
def endpoints(folder: Path, models: dict[str, Any]) -> Iterator[int]:
    """`hfray serve` on PORT; yields its pid."""
    gateway = {"name": "gateway", "import_path": "hfray.serving.app:gateway", "args": {"port": PORT}}
    apps = [gateway] + [
        {"name": name, "import_path": "hfray.serving.app:model", "route_prefix": None, "args": args}
        for name, args in models.items()
    ]
    path = folder / "endpoints.yaml"
    path.write_text(yaml.safe_dump({"proxy_location": "Disabled", "applications": apps}))
    command = [sys.executable, "-m", "hfray.cli", "serve", str(path), "--quiet"]
    with process(command, {}, f"http://127.0.0.1:{PORT}/readyz") as pid:
        yield pid


@contextlib.contextmanager
def tutorial(model: Path) -> Iterator[None]:
    """FastAPI and a pipeline under uvicorn, as the tutorial writes it."""
    command = [sys.executable, "-m", "uvicorn", "benchmarks.tutorial_server:app", "--port", str(PORT)]
    with process([*command, "--log-level", "error"], {"MODEL": str(model)}, f"http://127.0.0.1:{PORT}/docs"):
        yield


@contextlib.contextmanager
def plain_serve(env: dict[str, str]) -> Iterator[None]:
    """A deployment that answers at once, behind Ray Serve's proxy."""
    command = [sys.executable, "-m", "benchmarks.plain_serve", str(PORT)]
    with process(command, env, f"http://127.0.0.1:{PORT}/"):
        yield


@contextlib.contextmanager
def process(command: list[str], env: dict[str, str], ready: str) -> Iterator[int]:
    settings = {"HF_HUB_OFFLINE": "1", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "PYTHONWARNINGS": "ignore"}
    started = subprocess.Popen(command, cwd=ROOT, env=os.environ | settings | env, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(ready, started), STARTS_S)
        yield started.pid
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait(60)


def answers(url: str, started: subprocess.Popen[bytes]) -> bool:
    if started.poll() is not None:
        sys.exit(f"a side ended with exit code {started.returncode}")
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, timeout=5).status_code == 200
    return False


def wait_until(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"not within {seconds} s")
        time.sleep(0.1)


def replicas(pid: int, name: str) -> list[int]:
    title = f"ray::ServeReplica:{name}:model"
    found = []
    for each in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if (each.cmdline() or [""])[0].startswith(title):
                found.append(each.pid)
    return found


# -- load


def questions(folder: Path) -> Path:
    """banking77's questions as a script of wrk."""
    with (DATA / "banking77" / "test.csv").open() as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    bodies = ",".join(json.dumps(json.dumps({"inputs": text})) for text in texts)
    path = folder / "questions.lua"
    path.write_text(
        f"local bodies={{{bodies}}}\nlocal number=0\n"
        'wrk.method="POST"\nwrk.headers["Content-Type"]="application/json"\n'
        "request=function() number=number%#bodies+1 return wrk.format(nil,nil,nil,bodies[number]) end\n"
    )
    return path


def wrk_command(url: str, script: Path, connections: int, seconds: float) -> list[str]:
    return ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script), "--latency", url]


def wrk(url: str, script: Path, connections: int) -> tuple[float, float]:
    """(requests a second, median milliseconds). Ends the benchmark if an answer is no 2xx."""
    subprocess.run(wrk_command(url, script, connections, WARM_S), check=True, capture_output=True)
    done = subprocess.run(wrk_command(url, script, connections, RUN_S), check=True, capture_output=True, text=True)
    if "Non-2xx" in done.stdout:
        sys.exit(done.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    half = re.search(r"50%\s+([\d.]+)(us|ms|s)", done.stdout)
    if rate is None or half is None:
        sys.exit(done.stdout)
    return float(rate[1]), float(half[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[half[2]]


def classifier(folder: Path) -> Path:
    """MiniLM with a random head for banking77's intents."""
    path = folder / "classifier"
    if not path.exists():
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from hfray.models.source import resolve_source

        source = resolve_source(MODEL, None).path
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=NUM_LABELS, dtype=torch.float32)
        model.save_pretrained(path)
        AutoTokenizer.from_pretrained(source).save_pretrained(path)
    return path


SECTIONS = {"classify": classify, "ways": ways, "chat": chat, "cold": cold, "scale": scale}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        run_sections(SECTIONS, Path(folder))
