"""What the promises are tested with: real drivers, real raylets, real kills. Kills nothing that it did not start."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.promises import oracle

REPOSITORY = Path(__file__).resolve().parents[2]
FAULTS = Path(__file__).resolve().parent / "faults"
PATIENCE_S = 400  # of a machine that is busy with other things
POLL_S = 0.05


class Helper:
    """A process spoken to in JSON lines."""

    def __init__(self, module: str, *args: str, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", module, *args],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            cwd=REPOSITORY, env=env,
        )  # fmt: skip
        self._lock = threading.Lock()
        self.greeting = self._read()

    def ask(self, request: dict[str, Any]) -> Any:
        with self._lock:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            return json.loads(self._read())

    def close(self) -> None:
        children = _tree(self.process.pid)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        self.process.stdout.close()
        for each in [*children, psutil.Process(self.process.pid)] if self.process.poll() is None else children:
            with contextlib.suppress(psutil.NoSuchProcess):  # knows a pid that was given to somebody else
                each.kill()
        self.process.wait()

    def _read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")
        return line.strip()


class Nodes(Helper):
    """A cluster; its raylets are the children of the helper."""

    def __init__(self, head_cpus: int, env: dict[str, str]) -> None:
        super().__init__("tests.promises.nodes", str(head_cpus), env=env)
        self.address = self.greeting

    def add(self, cpus: int = 1) -> int:
        return int(self.ask({"add": cpus}))

    def remove(self, node: int) -> None:
        self.ask({"remove": node})

    def workers(self) -> list[psutil.Process]:
        return _workers(_tree(self.process.pid))


class Run:
    """One driver."""

    def __init__(self, nursery: Helper, pid: int, log: Path, started_at: float) -> None:
        self._nursery = nursery
        self.pid = pid
        self.log = log
        self.started_at = started_at
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None:
            self._status = self._nursery.ask({"poll": self.pid})
        return self._status

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        deadline = time.monotonic() + timeout_s
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"the run did not end in {timeout_s} s:\n{self.text()}")
            time.sleep(0.02)
        return status

    def kill(self, signum: int = signal.SIGKILL) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)
            if signum == signal.SIGKILL:
                while self.poll() is None:
                    time.sleep(0.005)

    def text(self) -> str:
        """What it printed."""
        return self.log.read_text(errors="replace")

    def why(self) -> str:
        """The same, and what Ray's core says, which may end a process without a word."""
        return self.text() + driver_log(self.pid)

    def workers(self) -> list[psutil.Process]:
        """Actor processes of a Ray that this driver started itself."""
        return _workers(_tree(self.pid))


class Rig:
    """A folder with a model and inputs, and the means to run jobs over them."""

    def __init__(self, folder: Path, nursery: Helper, nodes: Nodes, faults: Path, model: Path) -> None:
        self.folder = folder
        self.nodes = nodes
        self.faults = faults
        self.model = model
        self._nursery = nursery
        self._runs: list[Run] = []

    def input(self, num_rows: int, name: str = "input.parquet") -> Path:
        numbers = range(num_rows)
        texts = [f"text {number} " + "word " * (number % 7) for number in numbers]
        pq.write_table(pa.table({"number": list(numbers), "text": texts}), self.folder / name, row_group_size=1000)
        return self.folder / name

    def job(self, source: Path, *, seconds_per_item: float | None = 0.0, name: str = "job", **changes: Any) -> Path:
        """A job file. seconds_per_item: of the fake engine; None runs the tiny real model. A key that is None is left
        out."""
        spec: dict[str, Any] = {
            "kind": "score",
            "name": name,
            "model": {"path": str(self.model)},
            "task": {"name": "text-classification", "top_k": "all"},
            "input": {"path": str(source)},
            "output": {"path": str(self.folder / "out")},
            "shard_rows": 250,
        }
        if seconds_per_item is not None:
            spec["engine"] = {"name": "fake", "seconds_per_item": seconds_per_item}
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in (spec | changes).items() if value is not None}))
        return path

    @property
    def output(self) -> Path:
        return self.folder / "out"

    def start(
        self,
        job: Path,
        *args: str,
        nodes: Nodes | None = None,
        local: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> Run:
        """`hfray run JOB ARGS` on a cluster, or on a Ray of its own. env: beside the usual variables."""
        log = self.folder / f"run-{len(self._runs)}.log"
        log.touch()
        variables = {"RAY_ADDRESS": "" if local else (nodes or self.nodes).address, **(env or {})}
        request = {"argv": ["run", str(job), *args], "env": variables, "log": str(log), "faults": str(self.faults)}
        run = Run(self._nursery, self._nursery.ask({"start": request}), log, time.monotonic())
        self._runs.append(run)
        return run

    def run(self, job: Path, *args: str, code: int = 0, **where: Any) -> Run:
        """`start`, wait, and look at the exit code."""
        run = self.start(job, *args, **where)
        status = run.wait()
        assert status == code, f"exit code {status}, not {code}:\n{run.why()}"
        return run

    def fault(self, name: str, text: str) -> None:
        (self.faults / name).write_text(text)

    def num_parts(self) -> int:
        return len(list((self.output / "data").rglob("part-*"))) if self.output.is_dir() else 0

    def num_drafts(self) -> int:
        return len(list((self.output / "_work/drafts/parts").glob("part-*")))

    def wait_for(self, condition: Callable[[], Any], run: Run | None = None, timeout_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if run is not None and run.poll() is not None:
                raise AssertionError(f"the run ended with {run.poll()} before that:\n{run.why()}")
            if time.monotonic() > deadline:
                raise TimeoutError("what the test waits for did not come")
            time.sleep(0.01)

    def files(self) -> dict[str, tuple[int, int]]:
        """Path -> (size, time) of all files of the output."""
        return {
            str(path.relative_to(self.output)): (path.stat().st_size, path.stat().st_mtime_ns)
            for path in self.output.rglob("*")
            if path.is_file()
        }

    def num_loads(self) -> int:
        path = self.faults / "loads"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def close(self) -> None:
        for run in self._runs:
            run.kill(signal.SIGCONT)
            run.kill()
        for path in self.faults.iterdir():
            path.unlink()


class Observer:
    """Looks at an output every 50 ms, as another program would: `_SUCCESS` must never lie, every part must open."""

    def __init__(self, output: Path) -> None:
        self.observations = 0
        self.complete_observations = 0
        self.problems: list[str] = []
        self._output = output
        self._seen: dict[Path, tuple[int, int, int]] = {}
        self._digests: dict[Path, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()
        print(f"observed {self.observations} times, {self.complete_observations} of them complete")
        assert not self.problems, self.problems[:5]

    def _run(self) -> None:
        while not self._stop.wait(POLL_S):
            self._look()

    def _look(self) -> None:
        self.observations += 1
        before = self._manifest()
        parts = sorted((self._output / "data").rglob("part-*"))
        try:
            for part in parts:
                self._open(part)
            problem = None if before is None else self._difference(json.loads(before), parts)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        if before is None:
            if problem is not None and all(part.exists() for part in parts):
                self.problems.append(problem)
        elif self._manifest() == before:  # else it was taken away while we looked, as a retry must
            self.complete_observations += 1
            if problem is not None:
                self.problems.append(problem)

    def _manifest(self) -> str | None:
        with contextlib.suppress(OSError):
            return (self._output / "_SUCCESS").read_text()
        return None

    def _open(self, part: Path) -> None:
        stat = part.stat()
        key = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if self._seen.get(part) != key:
            data = part.read_bytes()
            oracle.read_part(part.name, data)
            self._digests[part] = oracle.sha256(data)
            self._seen[part] = key

    def _difference(self, manifest: dict[str, Any], parts: list[Path]) -> str | None:
        listed = {row[0]: row for row in manifest["parts"]}
        names = {part: str(part.relative_to(self._output / "data")) for part in parts}
        if set(listed) != set(names.values()):
            return f"_SUCCESS lists {len(listed)} parts, there are {len(parts)}"
        for part in parts:
            _, _, _, size_bytes, digest = listed[names[part]]
            if digest != self._digests[part] or size_bytes != part.stat().st_size:
                return f"_SUCCESS is wrong about {names[part]}"
        return None if (self._output / "errors.parquet").exists() else "_SUCCESS without errors.parquet"


def driver_log(pid: int) -> str:
    """The end of the log that Ray's core keeps of a driver; "" where there is none."""
    temporary = Path(tempfile.gettempdir()) / "ray"
    found = sorted(
        temporary.glob(f"session_*/logs/python-core-driver-*_{pid}.log"), key=lambda path: path.stat().st_mtime
    )
    return f"\n[{found[-1].name}]\n" + found[-1].read_text(errors="replace")[-3000:] if found else ""


def environment(faults: Path) -> dict[str, str]:
    """Of every process that the rig starts."""
    path = os.pathsep.join([str(FAULTS), str(REPOSITORY)])
    return {
        **{key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
        "PYTHONPATH": path,
        "HFRAY_FAULTS": str(faults),
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "RAY_record_ref_creation_sites": "0",
    }


def within(seconds: float) -> float:
    """A figure to reach, on a machine that also does other things."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def kill_workers(run: Run, processes: Callable[[], list[psutil.Process]], seed: int, kills: int) -> int:
    """Kills a random scoring actor every 1 to 3 seconds, so many times or until the run ends; the number of kills."""
    dice = random.Random(seed)
    done = 0
    while done < kills and run.poll() is None:
        workers = processes()
        if not workers:
            time.sleep(0.05)
            continue
        with contextlib.suppress(psutil.NoSuchProcess):
            dice.choice(workers).kill()
            done += 1
        deadline = time.monotonic() + dice.uniform(1, 3)
        while time.monotonic() < deadline and run.poll() is None:
            time.sleep(0.02)
    return done


def _tree(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def _workers(processes: list[psutil.Process]) -> list[psutil.Process]:
    found = []
    for each in processes:
        with contextlib.suppress(psutil.Error):
            if each.status() != psutil.STATUS_ZOMBIE and "MapWorker" in " ".join(each.cmdline()):
                found.append(each)
    return found


def seeds(short: int, long: int) -> list[Any]:
    """The same test with a few seeds on every push, with many at night."""
    return [pytest.param(seed, marks=pytest.mark.slow if seed < short else pytest.mark.chaos) for seed in range(long)]
