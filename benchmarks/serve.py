"""Serving, measured: ratios of sides that ran in turn on the same cores.

    python benchmarks/serve.py                    everything, about fifteen minutes on two cores
    python benchmarks/serve.py classify ways      some sections: classify, ways, hops, chat, cold, scale, refuse

Needs wrk. Prints the Markdown of docs/benchmarks.md. Machines differ and are shared: read the ratios.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import serve_chat
from benchmarks.generate_models import save
from benchmarks.measure import MODEL, ROUNDS, run, run_sections, table
from benchmarks.serve_sides import (
    PORT,
    classifier,
    endpoints,
    plain_serve,
    questions,
    refusals,
    replicas,
    tutorial,
    wait_until,
    wrk,
    wrk_command,
)

CROWDS = (32, 100, 200)
BUSY_S = 20
NOOP = "Ray Serve's proxy to a deployment that does nothing"


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
            ("Ray Serve behind HAProxy", {"RAY_SERVE_ENABLE_HA_PROXY": "1"}),
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


def hops(folder: Path) -> None:
    """Where the time of one request goes, one connection at a time."""
    script, model = questions(folder), classifier(folder)
    task = {"model": {"path": str(model), "dtype": "float32"}, "task": "text-classification"}
    sides = {
        "to the gateway and back": ("healthz", None),
        "and to a replica, whose engine answers at once": ("models/intents", {**task, "engine": {"name": "fake"}}),
        "and through the model": ("models/intents", {**task, "resources": {"cpus": 2}}),
    }
    found: dict[str, list[float]] = {name: [] for name in [*sides, NOOP, "the engine alone"]}
    for _ in range(ROUNDS):
        for name, (path, args) in sides.items():
            with endpoints(folder, {"intents": args or sides["and through the model"][1]}):
                url = f"http://127.0.0.1:{PORT}/{path}"
                found[name].append(wrk(url, script if args else None, 1)[1])
        with plain_serve({}):
            found[NOOP].append(wrk(f"http://127.0.0.1:{PORT}/", script, 1)[1])
        alone = run([sys.executable, "-m", "benchmarks.serve_alone", str(model)])
        found["the engine alone"].append(float(alone.splitlines()[-1]))
    rows = [[name, f"{statistics.median(each):.1f}"] for name, each in found.items()]
    table("One request", ["way", "p50 ms"], rows)
    whole, engine, noop = (found[name] for name in ("and through the model", "the engine alone", NOOP))
    above = [(a - b) / c for a, b, c in zip(whole, engine, noop, strict=True)]
    print(f"Above the engine's own it takes {statistics.median(above):.2f} of what Ray Serve's chain does.\n")


def chat(folder: Path) -> None:
    """Streams of a language model, against its engine alone."""
    path = save(serve_chat.SHAPE, folder / "chat")
    with endpoints(folder, {"chat": serve_chat.spec(path)}):
        serve_chat.measure(f"http://127.0.0.1:{PORT}/v1/chat/completions", path, folder)


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


def refuse(folder: Path) -> None:
    """How many requests a second a gateway refuses, and how soon, while the model's one place is taken."""
    args = {
        "model": {"path": str(classifier(folder))}, "task": "text-classification",
        "engine": {"name": "fake", "seconds_per_item": BUSY_S},
        "limits": {"max_queued_requests": 1, "max_ongoing_requests": 1}, "health_timeout_s": 3 * BUSY_S,
    }  # fmt: skip
    script = questions(folder)
    found: dict[int, list[tuple[float, float]]] = {}
    with endpoints(folder, {"intents": args}):
        for _ in range(ROUNDS):
            for connections in CROWDS:
                measured = refusals(f"http://127.0.0.1:{PORT}/models/intents", script, connections)
                found.setdefault(connections, []).append(measured)
    rows = [
        [str(connections), *(f"{statistics.median(each):.0f}" for each in zip(*measured, strict=True))]
        for connections, measured in found.items()
    ]
    table("A full model", ["connections", "refusals/s", "99 % within ms"], rows)


SECTIONS = {
    "classify": classify, "ways": ways, "hops": hops, "chat": chat, "cold": cold, "scale": scale, "refuse": refuse,
}  # fmt: skip

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        run_sections(SECTIONS, Path(folder))
