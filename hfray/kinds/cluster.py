"""The Ray at hand: the one named by RAY_ADDRESS, one that this process is connected to already, or a new local one.

Knows how to start and leave Ray quietly and closed to the outside; not what runs on it.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hfray.data.storage import Storage
from hfray.errors import DataError, EngineError, SpecError
from hfray.kinds import units
from hfray.kinds.dashboard import OPEN, asks_nobody
from hfray.kinds.ray_token import make_token
from hfray.spec.labels import has_labels

OBJECT_STORE_BYTES = 256 * 2**20  # descriptors and receipts only; rows never enter the object store
PROBE_TIMEOUT_S = 60
DASHBOARD_S = 3.0
"""For a word about it; a firewall between here and the dashboard may swallow the question."""
RAY_DATA_ENDS_S = 10.0
SESSION_BYTES = 32 * 2**20  # sockets, ports and logs of a local Ray
FULL_BYTES, FULL_S = 64 * 2**10, 20.0  # so little for so long, and none of its processes will start
_UNSAFE_SWITCHES = (
    "RAY_DATA_AUTOLOAD_PICKLE_OBJECT_SCALAR",
    "RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE",
    "RAY_DATA_WEBDATASET_ALLOW_UNSAFE_DESERIALIZATION",
)
_log = logging.getLogger(__name__)


class Cluster:
    """Connected on first use; left on `close`, and shut down if it was started here."""

    def __init__(self, *, debug: bool = False) -> None:
        self._debug = debug
        self._connected = False
        self._owned = False
        self.is_local = False
        """Whether this process started it, so that no node can join."""
        self._room_at = 0.0

    @property
    def connected(self) -> bool:
        return self._connected

    def connect(self, *, serving: bool = False) -> None:
        """Raises SpecError when RAY_ADDRESS leads nowhere, or a switch is set that lets data files run code.

        serving: for endpoints, not for a job.
        """
        if self._connected:
            return
        for switch in _UNSAFE_SWITCHES:
            if os.environ.get(switch):
                raise SpecError(f"{switch} is set: it lets a data file run code; unset it")
        import ray

        os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no report leaves the machine unasked
        if not ray.is_initialized():
            with _own_sigterm():
                if os.environ.get("RAY_ADDRESS"):
                    self._join()
                else:
                    self._start()
            self._owned = True
        if serving:
            self._quiet_serve()
        else:
            self._quiet_ray_data()
        self._connected = True

    def close(self) -> None:
        if self._connected and self._owned:
            import ray

            # Ray ends a process on the spot, without a word, whose threads call it after its shutdown. If one waits for
            # a Ray that will never answer, there is none: Ray's processes end when they see that this one has.
            if _ray_data_ended():
                ray.shutdown()
            else:
                atexit.unregister(ray.shutdown)
        self._connected = False

    def total(self, resource: str, labels: Mapping[str, str] | None = None) -> float:
        """How much of a resource ("CPU", "GPU") all nodes have together; labels: those with such alone."""
        import ray

        return sum(
            float(node["Resources"].get(resource, 0.0))
            for node in ray.nodes()
            if node["Alive"] and has_labels(node["Labels"], labels or {})
        )

    def check_room(self) -> None:
        """Called now and then while workers start: raises EngineError when a local Ray has had no room for it for a
        while, because it would try for ever and not say why."""
        if not self.is_local:
            return
        folder, free_bytes = _session_folder()
        if free_bytes >= FULL_BYTES:
            self._room_at = time.monotonic()
        elif time.monotonic() - self._room_at > FULL_S:
            raise _no_room(folder, free_bytes)

    def probe(self, urls: Sequence[str], output: Storage) -> None:
        """Shows that every node reads the input and sees what another node writes to the output.

        Raises DataError naming the node and the path. A cluster of one node needs no probe.
        """
        if len(self._nodes()) > 1:
            self.probe_all(list(urls)[:1], output)

    def probe_all(self, urls: Sequence[str], output: Storage | None) -> None:
        """The same for each of the inputs, on one node too: what is asked was not found on this machine."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = self._nodes()
        name = f"_work/probe-{uuid.uuid4().hex}"
        if output is not None:
            output.replace(name, b"hfray")
        try:
            checks = {
                node: ray.remote(num_cpus=0)(_probe_node)
                .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
                .remote(list(urls), output, name)
                for node in nodes
            }
            for node, check in checks.items():
                try:
                    problem = ray.get(check, timeout=PROBE_TIMEOUT_S)
                except ray.exceptions.TaskUnschedulableError:
                    continue  # the node has left since; it does no work here
                if problem:
                    raise DataError(
                        f"node {nodes[node]} of the cluster cannot do the job: {problem}; "
                        "input and output must be on storage that all nodes share"
                    )
        finally:
            if output is not None:
                output.delete(name)

    def _nodes(self) -> dict[str, str]:
        import ray

        return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}

    def _join(self) -> None:
        import ray

        try:
            joined = ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=self._debug, logging_level=self._level())
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise SpecError(
                f"RAY_ADDRESS={os.environ['RAY_ADDRESS']}: no Ray cluster answers there ({reason}); "
                "start it, or unset RAY_ADDRESS to run on this machine alone"
            ) from None
        _warn_if_open(getattr(joined, "dashboard_url", None))

    def _start(self) -> None:
        # Ray listens on all interfaces unless it believes to be on a platform without clusters. It looks at the
        # variable when it is imported, which it has been; the processes that it starts look for themselves.
        from ray._private import ray_constants

        os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
        ray_constants.ENABLE_RAY_CLUSTER = False
        folder, free_bytes = _session_folder()
        if free_bytes < SESSION_BYTES:
            raise _no_room(folder, free_bytes)  # Ray itself would wait half a minute and not say why
        make_token()
        import ray

        try:
            ray.init(
                address="local",
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=self._debug,
                logging_level=self._level(),
            )
        except Exception as error:  # Ray's own class for a process that did not come up in time
            reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
            raise EngineError(
                f"Ray did not start on this machine ({reason}); on a very busy one run the same command again later, "
                f"else look in {folder / 'ray/session_latest/logs'}"
            ) from error
        self.is_local = True
        self._room_at = time.monotonic()

    def _level(self) -> int:
        return logging.INFO if self._debug else logging.ERROR

    def _quiet_serve(self) -> None:
        if not self._debug:
            logging.getLogger("ray.serve").setLevel(logging.ERROR)

    def _quiet_ray_data(self) -> None:
        from ray.data import DataContext

        context = DataContext.get_current()
        context.enable_progress_bars = self._debug
        context.print_on_execution_start = False
        if not self._debug:
            logging.getLogger("ray.data").setLevel(logging.ERROR)


@contextmanager
def cluster(*, debug: bool = False) -> Iterator[Cluster]:
    """A cluster for the length of a `with`; Ray starts at the first `connect`."""
    each = Cluster(debug=debug)
    try:
        yield each
    finally:
        each.close()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray puts a handler of SIGTERM of its own in place of the one that is there, whose exit code is 15."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _ray_data_ended() -> bool:
    """Whether Ray Data's own thread has ended, which it gives two seconds itself; one that waits for Ray, as after a
    long standstill, needs more."""
    deadline_s = time.monotonic() + RAY_DATA_ENDS_S
    threads = [each for each in threading.enumerate() if each.name.startswith("StreamingExecutor")]
    for thread in threads:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


def _session_folder() -> tuple[Path, int]:
    """Where a local Ray keeps its files, in Ray's own order of looking, and the bytes free there."""
    folder = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    return folder, shutil.disk_usage(existing).free


def _no_room(folder: Path, free_bytes: int) -> EngineError:
    return EngineError(
        f"{folder}: no space left for Ray's own files ({units.size(free_bytes)} free, {units.size(SESSION_BYTES)} "
        "needed): free some, or set RAY_TMPDIR to a folder on another disk; the same command then goes on"
    )


def _probe_node(urls: list[str], output: Storage | None, name: str) -> str | None:
    """Runs on one node: what it cannot see, or None."""
    from hfray.data.storage import storage_for

    try:
        for url in urls:
            storage, path = storage_for(url)
            if not storage.exists(path) and not storage.is_folder(path):
                return f"it does not see the input {url}"
        if output is not None and output.read_bytes(name) != b"hfray":
            return f"it does not see the output {output.root}"
    except Exception as error:
        return str(error)
    return None


def _warn_if_open(dashboard: str | None) -> None:
    """A word about a cluster that the user is on already (T1); commands that come from outside refuse it."""
    from requests.exceptions import RequestException

    if dashboard is None:
        return
    with suppress(RequestException):
        if asks_nobody(f"http://{dashboard}", DASHBOARD_S):
            _log.warning("RAY_ADDRESS=%s: %s", os.environ["RAY_ADDRESS"], OPEN)
