"""Real endpoints for the promises about serving: `hfray serve` as a process of its own, clients that count."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import psutil
import yaml

from tests.promises.rig import REPOSITORY, environment, within

STARTS_S = 180
ENDS_S = 60
READY_EVERY_S = 0.5


@dataclass
class Endpoints:
    """One `hfray serve` and its file."""

    folder: Path
    faults: Path
    port: int
    gateway: dict[str, Any] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def path(self) -> Path:
        return self.folder / "endpoints.yaml"

    @property
    def log(self) -> Path:
        return self.folder / "endpoints.log"

    def write(self) -> None:
        """The file, whole or not at all: the process may read it."""
        apps: list[dict[str, Any]] = [
            {"name": "gateway", "import_path": "hfray.serving.app:gateway", "args": {"port": self.port, **self.gateway}}
        ]
        for name, args in self.models.items():
            path = "hfray.serving.app:model"
            apps.append({"name": name, "import_path": path, "route_prefix": None, "args": args})
        fresh = self.path.with_suffix(".new")
        fresh.write_text(yaml.safe_dump({"proxy_location": "Disabled", "applications": apps}))
        fresh.replace(self.path)

    def start(self, **env: str) -> None:
        self.write()
        command = [sys.executable, "-m", "hfray.cli", "serve", str(self.path)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment(self.faults) | env)
        self.wait_until(lambda: "Ctrl-C ends it" in self.text(), STARTS_S)
        self.wait_until(self.ready, 30)

    def apply(self) -> None:
        """Writes the file and lets the process read it again."""
        assert self.process is not None
        self.write()
        before = self.text().count("read again")
        self.process.send_signal(signal.SIGHUP)
        self.wait_until(lambda: self.text().count("read again") > before, 30)

    def close(self) -> int:
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(ENDS_S)
        except subprocess.TimeoutExpired:
            for process in self.tree():
                process.kill()
            raise

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        return False

    def logs(self) -> list[Path]:
        """All that its processes have written, Ray's files among them."""
        raylet = next(process for process in self.tree() if process.name() == "raylet")
        (session,) = {each for each in raylet.cmdline() if each.startswith("--session_dir=")}
        folder = Path(session.removeprefix("--session_dir=")) / "logs"
        found = [each for each in folder.rglob("*") if each.is_file() and each.stat().st_size < 50 * 2**20]
        assert found
        return [*found, self.log]

    def metrics(self) -> str:
        """What a Prometheus finds: the page of the one process that exports Ray's metrics."""
        for address in listening({process.pid for process in self.tree()}):
            with contextlib.suppress(httpx.HTTPError):
                page = httpx.get(f"http://127.0.0.1:{address.rpartition(':')[2]}/metrics", timeout=5)
                if "ray_hfray_" in page.text:
                    return page.text
        return ""

    def tree(self) -> list[psutil.Process]:
        assert self.process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def processes(self, title: str) -> list[int]:
        """Pids whose title begins so: `ray::ServeReplica:NAME:model`, `ray::ServeController`."""
        found = []
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                shown = (process.cmdline() or [""])[0]
                if shown.startswith(title) and "initialize" not in shown:  # it has started
                    found.append(process.pid)
        return sorted(found)

    def replicas(self, name: str) -> list[int]:
        deployment = "gateway" if name == "gateway" else "model"
        return self.processes(f"ray::ServeReplica:{name}:{deployment}")

    def settled(self, name: str, count: int) -> list[int]:
        """The pids of so many replicas, once it has been these for a second: one that starts has its title at times."""
        found: list[int] = []

        def the_same() -> bool:
            nonlocal found
            found = self.replicas(name)
            time.sleep(1)
            return len(found) == count and self.replicas(name) == found

        self.wait_until(the_same, 60)
        return found

    def wait_until(self, condition: Callable[[], Any], seconds: float) -> float:
        """How long it took. Raises TimeoutError with what the process printed."""
        started = time.monotonic()
        limit = within(seconds)
        while not condition():
            if self.process is not None and self.process.poll() is not None:
                raise RuntimeError(f"hfray serve ended with {self.process.returncode}:\n{self.text()}")
            if time.monotonic() - started > limit:
                raise TimeoutError(f"not within {limit:.0f} s:\n{self.text()}")
            time.sleep(0.05)
        return time.monotonic() - started

    def fault(self, name: str, text: str | None) -> None:
        if text is None:
            (self.faults / name).unlink(missing_ok=True)
        else:
            (self.faults / name).write_text(text)


def add_key(file: Path, name: str, *options: str) -> str:
    """The text of a new key, as `hfray keys add` prints it."""
    command = [sys.executable, "-m", "hfray.cli", "keys", "add", "--file", str(file), "--id", name, *options]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout.strip()


def free_port() -> int:
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return int(each.getsockname()[1])


@dataclass
class Load:
    """What a client saw."""

    statuses: Counter[str] = field(default_factory=Counter)
    latencies_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By status."""
    bad: list[str] = field(default_factory=list)
    """The first answers that were no 2xx."""
    ready: Counter[int] = field(default_factory=Counter)
    """What /readyz said meanwhile, by status."""
    rude: list[str] = field(default_factory=list)
    """Refusals that do not say when to come again, or not in JSON."""

    @property
    def num(self) -> int:
        return sum(self.statuses.values())

    @property
    def failed(self) -> int:
        return self.num - self.statuses["200"]

    def quantile_s(self, share: float, status: str = "200") -> float:
        ordered = sorted(self.latencies_s[status])
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@contextlib.contextmanager
def load(
    url: str,
    bodies: Callable[[int], Mapping[str, Any]],
    rate_per_s: float,
    headers: Mapping[str, str] | None = None,
    connections: int = 500,
) -> Iterator[Load]:
    """Requests at a steady rate, whatever becomes of them, by a client that tries nothing twice; in a thread. Beside
    them it looks after /readyz."""
    import threading

    found, stop = Load(), threading.Event()

    async def one(client: aiohttp.ClientSession, number: int) -> None:
        started = time.monotonic()
        try:
            async with client.post(url, json=dict(bodies(number))) as response:
                text, status = await response.text(), str(response.status)
            if status in ("429", "503") and not _is_polite(response.headers, text):
                found.rude.append(f"{status} {dict(response.headers)} {text[:200]}")
            if status != "200" and len(found.bad) < 5:
                found.bad.append(f"{status} {text[:200]}")
        except (aiohttp.ClientError, TimeoutError) as error:
            status = type(error).__name__
            if len(found.bad) < 5:
                found.bad.append(repr(error))
        found.latencies_s[status].append(time.monotonic() - started)
        found.statuses[status] += 1

    async def look() -> None:
        async with httpx.AsyncClient(timeout=60) as client:
            while not stop.is_set():
                with contextlib.suppress(httpx.TransportError):  # a gateway that is killed
                    found.ready.update([(await client.get(httpx.URL(url).join("/readyz"))).status_code])
                await asyncio.sleep(READY_EVERY_S)

    async def run() -> None:
        # aiohttp: a request that waits for a connection costs httpx's pool time at every answer, so that one standstill
        # of the machine leaves the client behind for good.
        connector, timeout = aiohttp.TCPConnector(limit=connections), aiohttp.ClientTimeout(60)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as client:
            tasks: set[asyncio.Task[None]] = {asyncio.create_task(look())}
            started, number = time.monotonic(), 0
            while not stop.is_set():
                while number < (time.monotonic() - started) * rate_per_s:
                    tasks.add(task := asyncio.create_task(one(client, number)))
                    task.add_done_callback(tasks.discard)
                    number += 1
                await asyncio.sleep(0.005)
            await asyncio.gather(*tasks)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def _is_polite(headers: Mapping[str, str], text: str) -> bool:
    with contextlib.suppress(ValueError, KeyError):
        return int(headers["retry-after"]) >= 1 and bool(json.loads(text)["error"])
    return False


@contextlib.contextmanager
def watched(pids: list[int]) -> Iterator[dict[int, int]]:
    """Bytes by which each process was larger than at the beginning, at the worst moment: four times a second."""
    import threading

    before = {pid: psutil.Process(pid).memory_info().rss for pid in pids}
    grown, stop = dict.fromkeys(pids, 0), threading.Event()

    def look() -> None:
        while not stop.wait(0.25):
            for pid in pids:
                grown[pid] = max(grown[pid], psutil.Process(pid).memory_info().rss - before[pid])

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield grown
    finally:
        stop.set()
        thread.join()


def listening(pids: set[int]) -> dict[str, int]:
    """Addresses that processes listen on, and the port."""
    found: dict[str, int] = {}
    output = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout
    for line in output.splitlines():
        if {int(pid) for pid in re.findall(r"pid=(\d+)", line)} & pids:
            found[line.split()[3]] = found.get(line.split()[3], 0) + 1
    return found


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
