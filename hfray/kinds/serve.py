"""`hfray serve` and `hfray deploy`: a checked Ray Serve file onto a Ray, and what a person sees of it. Knows Ray
Serve's states and the console; not requests."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape

from hfray.errors import INTERRUPTED, EngineError, HfrayError, SpecError
from hfray.kinds.cluster import Cluster, cluster
from hfray.kinds.dashboard import dashboard_address, serve_client, told
from hfray.kinds.run import interrupt, log_path_of
from hfray.log import quiet as quieted
from hfray.serving.directory import serve_details
from hfray.serving.port import check_free
from hfray.spec.serve_file import ServeFile, load_serve_file

POLL_S = 0.5
WAITS_FOR_ROOM_S = 20.0
_NEEDS = re.compile(r"Resources required for each replica: (\{.*?\}), total resources available: (\{.*?\})")
_OPEN_TO_ALL = (
    "RAY_SERVE_ENABLE_HA_PROXY is set: where Ray Serve runs its proxies, the ports of HAProxy and of replicas are open "
    "to all interfaces. The gateway does without them; unset it"
)
log = logging.getLogger(__name__)
_SICK = {"DEPLOY_FAILED": "[red]failed[/red]", "UNHEALTHY": "[yellow]unwell[/yellow]"}


def serve_here(file: ServeFile, *, quiet: bool, debug: bool) -> int:
    """Serves until Ctrl-C or SIGTERM, then lets what runs end; SIGHUP reads the file again and applies what changed.

    Returns the exit code. Raises HfrayError when a model cannot be brought up.
    """
    log_path = log_path_of("serve")
    with quieted(log_path, debug=debug) as console:
        previous = signal.signal(signal.SIGTERM, interrupt)
        try:
            with cluster(debug=debug) as ray_at_hand:
                return _serve(file, ray_at_hand, console, quiet=quiet)
        except KeyboardInterrupt:
            return INTERRUPTED
        except HfrayError as error:
            if not isinstance(error, SpecError):
                error.add_note(f"log: {log_path}")
            raise
        finally:
            signal.signal(signal.SIGTERM, previous)


def _serve(file: ServeFile, ray_at_hand: Cluster, console: Console, *, quiet: bool) -> int:
    say: Callable[[str], None] = (lambda text: None) if quiet else _teller(console)
    started = time.monotonic()
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1":
        say(f"[yellow]{_OPEN_TO_ALL}[/yellow]")
    if not os.environ.get("RAY_ADDRESS"):  # else the gateway may run on another machine
        check_free(file.gateway.host, file.gateway.port)
    say("[dim]starting ray[/dim]")
    ray_at_hand.connect(serving=True)
    from ray import serve
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    _refuse_others(file)
    serve.start(proxy_location="Disabled")
    client = _get_global_client()
    if client is None:
        raise EngineError("Ray Serve did not start")

    def apply(file: ServeFile) -> None:
        client.deploy_apps(ServeDeploySchema.model_validate(file.content))

    try:
        with _on_hangup() as again:
            apply(file)
            _wait_until_up(file, _states, say, None)
            say(f"[dim]up after {time.monotonic() - started:.0f} s[/dim]")
            _say_how_to_ask(file, say)
            _watch(file, apply, again, say)
    except KeyboardInterrupt:
        say("[dim]ending: what is being answered is finished first[/dim]")
    finally:
        serve.shutdown()
    return 0


def deploy_file(file: ServeFile, *, address: str | None, wait_s: float, allow_open: bool = False) -> int:
    """Publishes through the REST API of the cluster's dashboard. Raises SpecError for one that does not answer,
    EngineError for a model that does not come up."""
    where = dashboard_address(address)
    client = serve_client(where, allow_open=allow_open)
    try:
        with told(where):
            client.deploy_applications(dict(file.content))
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SpecError(f"{where}: the cluster's dashboard does not take the file ({reason})") from None
    say = _teller(Console())
    say(f"sent to {where}: {', '.join(file.models)}")
    if wait_s > 0:
        _wait_until_up(file, lambda: client.get_serve_details()["applications"], say, wait_s)
    return 0


def _teller(console: Console) -> Callable[[str], None]:
    """Prints lines as they are, however wide."""
    return lambda text: console.print(text, highlight=False, soft_wrap=True)


def _states() -> Mapping[str, Any]:
    applications: Mapping[str, Any] = serve_details()["applications"]
    return applications


def _refuse_others(file: ServeFile) -> None:
    """Ray Serve takes away what a file does not name."""
    from ray import serve

    try:
        there = set(serve.status().applications)
    except Exception:  # no Serve runs on this cluster: it is ours alone
        return
    others = sorted(there - set(file.models) - {file.gateway_name})
    if others:
        raise SpecError(
            f"{file.path}: this cluster serves {', '.join(others)}, which the file does not name and which would be "
            "taken away; publish the whole with `hfray deploy`"
        )


def _wait_until_up(
    file: ServeFile, states: Callable[[], Mapping[str, Any]], say: Callable[[str], None], wait_s: float | None
) -> None:
    """Until every application runs. Raises EngineError for one that failed, or after `wait_s`."""
    names = [file.gateway_name, *file.models]
    started = time.monotonic()
    told: set[str] = set()
    crowded = _Crowded(say)
    while True:
        found = states()
        crowded.look(found)
        for name in names:
            state = found.get(name, {})
            if state.get("status") in _SICK:
                raise EngineError(f"{name}: {_reason(state)}")
            if state.get("status") == "RUNNING" and name not in told:
                told.add(name)
                if name != file.gateway_name:
                    say(f"[green]ready[/green]   {name}  [dim]{file.models[name].task.name}[/dim]")
        if len(told) == len(names):
            return
        waited_s = time.monotonic() - started
        if wait_s is not None and waited_s > wait_s:
            missing = ", ".join(name for name in names if name not in told)
            raise EngineError(f"not up after {wait_s:.0f} s: {missing}; Ray Serve goes on trying")
        time.sleep(POLL_S)


class _Crowded:
    """Tells once of replicas that have waited for a place for a while, and again after they had one."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._since: float | None = None
        self._told = False

    def look(self, states: Mapping[str, Any]) -> None:
        full = _without_room(states)
        if not full:
            self._since, self._told = None, False
            return
        self._since = time.monotonic() if self._since is None else self._since
        if not self._told and time.monotonic() - self._since > WAITS_FOR_ROOM_S:
            self._told = True
            self._say(f"[yellow]{escape(full)}[/yellow]")


def _without_room(found: Mapping[str, Any]) -> str:
    """Whose replicas wait for a place, and what it takes; "" if none does."""
    for name, app in found.items():
        for deployment in app.get("deployments", {}).values():
            needs = _NEEDS.search(str(deployment.get("message", "")))
            if needs is not None:
                return f"{name} waits for a place: a replica takes {needs[1]}, and the cluster has {needs[2]} free"
    return ""


def _reason(state: Mapping[str, Any]) -> str:
    """What Ray Serve says of a failure: our own message where there is one, else the last line."""
    text = str(state.get("message") or "")
    for deployment in state.get("deployments", {}).values():
        text += "\n" + str(deployment.get("message") or "")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("hfray.errors.")]
    if ours:
        return ours[-1].partition(": ")[2]
    return lines[-1] if lines else "it did not come up, and Ray Serve does not say why"


def _say_how_to_ask(file: ServeFile, say: Callable[[str], None]) -> None:
    gateway = file.gateway
    where = f"http://{gateway.host}:{gateway.port}"
    say(f"\n[bold]{where}[/bold]")
    if gateway.keys is None:
        say(f"[dim]no keys: whoever can reach {gateway.host} on this machine is served[/dim]")
    for name in file.models:
        say(f"  {where}/models/{name}")
    say("[dim]OpenAI clients: base_url " + where + "/v1; Ctrl-C ends it[/dim]")


@contextmanager
def _on_hangup() -> Iterator[threading.Event]:
    """An event that SIGHUP sets: to read the file again."""
    again = threading.Event()
    previous = signal.signal(signal.SIGHUP, lambda signum, frame: again.set())
    try:
        yield again
    finally:
        signal.signal(signal.SIGHUP, previous)


def _watch(
    file: ServeFile, apply: Callable[[ServeFile], None], again: threading.Event, say: Callable[[str], None]
) -> None:
    """Tells of models that go and come, until somebody ends it."""
    shown: dict[str, str] = dict.fromkeys(_states(), "RUNNING")
    crowded = _Crowded(say)
    while True:
        time.sleep(POLL_S)
        if again.is_set():
            again.clear()
            try:
                file = load_serve_file(file.path)
            except SpecError as error:
                say(f"[red]{escape(str(error))}[/red]\n[dim]the endpoints go on as they were[/dim]")
                continue
            apply(file)
            say(f"[dim]{file.path}: read again[/dim]")
        try:
            states = _states()
        except Exception as error:  # the controller may be away for a while; endpoints answer without it
            log.warning("Ray Serve's controller does not answer: %s", type(error).__name__)
            continue
        crowded.look(states)
        for name in shown.keys() - states.keys():
            del shown[name]
            say(f"gone    {name}")
        for name, state in states.items():
            status = state["status"]
            if status == shown.get(name):
                continue
            shown[name] = status
            if status in _SICK:
                say(f"{_SICK[status]}  {name}  {escape(_reason(state))}")
            elif status == "RUNNING":
                say(f"[green]ready[/green]   {name}")
