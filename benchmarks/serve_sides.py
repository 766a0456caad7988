"""What benchmarks/serve.py measures, each started and stopped as a process, and the load on it."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from benchmarks.measure import MODEL, ROOT
from benchmarks.texts import DATA

PORT = 8123
NUM_LABELS = 77
WARM_S, RUN_S = 2, 8
STARTS_S = 240


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


def wrk_command(url: str, script: Path | None, connections: int, seconds: float) -> list[str]:
    scripted = [] if script is None else ["-s", str(script)]
    return ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", *scripted, "--latency", url]


def wrk(url: str, script: Path | None, connections: int) -> tuple[float, float]:
    """(requests a second, median milliseconds), without a script of plain GETs. Ends the benchmark if an answer is no
    2xx."""
    said = _loaded(url, script, connections)
    if "Non-2xx" in said:
        sys.exit(said)
    return _rate(r"Requests/sec:\s+([\d.]+)", said), _milliseconds(50, said)


def refusals(url: str, script: Path, connections: int) -> tuple[float, float]:
    """(refusals a second, milliseconds within which 99 % of all answers came) of a model that is full."""
    said = _loaded(url, script, connections)
    return _rate(r"Non-2xx or 3xx responses: (\d+)", said) / RUN_S, _milliseconds(99, said)


def _loaded(url: str, script: Path | None, connections: int) -> str:
    """What wrk says, once all is warm."""
    subprocess.run(wrk_command(url, script, connections, WARM_S), check=True, capture_output=True)
    command = wrk_command(url, script, connections, RUN_S)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _rate(pattern: str, said: str) -> float:
    found = re.search(pattern, said)
    if found is None:
        sys.exit(said)
    return float(found[1])


def _milliseconds(percentile: int, said: str) -> float:
    found = re.search(rf"{percentile}%\s+([\d.]+)(us|ms|s)", said)
    if found is None:
        sys.exit(said)
    return float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[found[2]]


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
