"""The way to a cluster from outside: its dashboard's address, its token, and what can be wrong with them. Knows HTTP
and Ray's clients; not what is asked of the cluster."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hfray.errors import SpecError
from hfray.kinds.ray_token import show_token

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
TIMEOUT_S = 30
OPEN = (
    "this cluster asks nobody for a token, so whoever reaches it can run code on it; start it with RAY_AUTH_MODE=token "
    "(cluster.yaml does)"
)
_VARIABLES = ("RAY_DASHBOARD_ADDRESS", "RAY_API_SERVER_ADDRESS")
_TALKERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
_OVERRIDES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")


class UnreachableError(SpecError):
    """Nothing answers at the address; at another moment something may."""


def dashboard_address(address: str | None) -> str:
    """Where the dashboard is: what was given, else RAY_DASHBOARD_ADDRESS or RAY_API_SERVER_ADDRESS, else port 8265 of
    this machine, where `ray dashboard cluster.yaml` puts it. Raises SpecError for what is no such address."""
    named = {each: os.environ[each] for each in _VARIABLES if os.environ.get(each)}
    given = {"--address": address} if address else named
    key, where = next(iter(given.items()), ("--address", DEFAULT_ADDRESS))
    where = where.strip().rstrip("/")
    if "://" not in where:
        where = f"http://{where}"
    if not re.fullmatch(r"https?://(\[[0-9a-fA-F:]+\]|[\w.-]+)(:\d{1,5})?(/[^\s?#]*)?", where):
        raise SpecError(f"{key} {given.get(key, where)}: not the address of a dashboard, such as http://head:8265")
    return where


def jobs_client(where: str, *, allow_open: bool = False) -> Any:
    """Ray's JobSubmissionClient for the cluster at an address of `dashboard_address`.

    Raises SpecError: nothing answers, the token is not the cluster's, or the cluster asks nobody for one. allow_open:
    bear that last one.
    """
    _knock(where, allow_open)
    from ray.job_submission import JobSubmissionClient

    with _alone(), told(where):
        return JobSubmissionClient(where)


def serve_client(where: str, *, allow_open: bool = False) -> Any:
    """The same with Ray's ServeSubmissionClient."""
    _knock(where, allow_open)
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    with _alone(), told(where):
        return ServeSubmissionClient(where)


def _knock(where: str, allow_open: bool) -> None:
    """Before Ray's client is imported, which looks for the token then. Whoever reaches a cluster without a token runs
    code on it; such a cluster should get no data (T1)."""
    show_token()
    if allow_open:
        return
    from requests.exceptions import RequestException

    try:
        is_open = asks_nobody(where)
    except RequestException as error:
        raise unreachable(where, error) from None
    if is_open:
        raise SpecError(f"{where}: {OPEN}, or say --allow-open if only you can reach it")


def asks_nobody(where: str, timeout_s: float = TIMEOUT_S) -> bool:
    """Whether a dashboard lists its jobs without a token. Raises what `requests` raises."""
    import requests

    return requests.get(f"{where}/api/jobs/", timeout=timeout_s, allow_redirects=False).status_code == 200


@contextmanager
def told(where: str) -> Iterator[None]:
    """What Ray's clients raise while they ask, in the operator's words."""
    from ray.exceptions import AuthenticationError
    from requests.exceptions import RequestException

    try:
        yield
    except AuthenticationError:
        raise SpecError(
            f"{where}: the cluster asks for a token, and this one is not it; put the cluster's into the file that "
            "RAY_AUTH_TOKEN_PATH names, ~/.ray/auth_token by default"
        ) from None
    except (ConnectionError, RequestException) as error:
        raise unreachable(where, error) from None


def unreachable(where: str, error: Exception) -> UnreachableError:
    """Nothing answers there, or something that is no dashboard."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UnreachableError(
        f"{where}: no Ray dashboard answers there ({_short(reason)}); is it the address of the head, port 8265? From "
        "outside the cluster it is reached through a tunnel: `ray dashboard cluster.yaml`"
    )


@contextmanager
def _alone() -> Iterator[None]:
    """Ray's clients set their own log level when they are imported, and prefer these variables to the address that they
    are given."""
    for name in _TALKERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    kept = {each: os.environ.pop(each) for each in _OVERRIDES if each in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _short(reason: str) -> str:
    """Of urllib3's long sentences the cause at their end."""
    found = re.search(r"\[Errno -?\d+\] ([^)'\"]+)", reason)
    return found[1].strip() if found else reason[:120]
