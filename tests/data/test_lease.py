"""The lease: a live holder is named, a dead or frozen one is taken over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hfray.data import lease as leases
from hfray.data.lease import Lease, held_lease, refuse_live_holder
from hfray.data.ledger import Ledger
from hfray.errors import DataError, LeaseHeld

HOLD = """
import sys, time
from hfray.data.lease import held_lease
from hfray.data.ledger import Ledger
with held_lease(Ledger(sys.argv[1], "parquet", "")):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    each = Ledger(str(tmp_path / "out"), "parquet", "")
    each.open_work()
    return each


@pytest.fixture
def holder(ledger: Ledger) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, ledger.url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def content(ledger: Ledger) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ledger.read(leases.LEASE))
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_held_for_the_length_of_a_with(ledger: Ledger) -> None:
    with held_lease(ledger) as lease:
        lease.check()
        assert content(ledger)["pid"] == os.getpid()
    assert not ledger.storage.exists(leases.LEASE)


def test_a_living_holder_is_named_at_once(ledger: Ledger, holder: subprocess.Popen[str]) -> None:
    started = time.monotonic()
    with pytest.raises(LeaseHeld, match=f"process {holder.pid} on "):
        Lease(ledger).acquire()
    with pytest.raises(LeaseHeld, match=f"process {holder.pid} on "):
        refuse_live_holder(ledger)
    assert time.monotonic() - started < leases.WATCH_S


def test_a_dead_holder_is_taken_over_at_once(ledger: Ledger, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    started = time.monotonic()
    with held_lease(ledger):
        assert time.monotonic() - started < leases.WATCH_S
        assert content(ledger)["pid"] == os.getpid()


@pytest.mark.slow
def test_a_frozen_holder_is_taken_over_and_leaves_the_new_lease_alone(
    ledger: Ledger, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "WATCH_S", 1.5)
    holder.send_signal(signal.SIGSTOP)
    with held_lease(ledger) as lease:
        holder.send_signal(signal.SIGCONT)
        time.sleep(1.5)  # a beat of the one that woke up
        lease.check()
        assert content(ledger)["pid"] == os.getpid()


def test_the_quick_look_leaves_all_else_to_the_lease(ledger: Ledger, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    refuse_live_holder(ledger)
    foreign(ledger, 5)
    refuse_live_holder(ledger)
    ledger.delete(leases.LEASE)
    refuse_live_holder(ledger)
    refuse_live_holder(Ledger(f"{ledger.url}/nowhere", "parquet", ""))


def foreign(ledger: Ledger, beats: int) -> bool:
    """Writes a lease of another machine. False, so that it can stand in a condition."""
    fields = {"id": "theirs", "host": "elsewhere", "boot": "b", "pid": 1, "started": "1", "since": "noon"}
    ledger.write(leases.LEASE, json.dumps(fields | {"beats": beats}).encode())
    return False


@pytest.mark.slow
def test_a_silent_machine_is_taken_over(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "WATCH_S", 0.6)
    foreign(ledger, 5)
    with held_lease(ledger):
        assert content(ledger)["pid"] == os.getpid()


@pytest.mark.slow
def test_a_beating_machine_is_not(ledger: Ledger) -> None:
    foreign(ledger, 5)
    timer = threading.Timer(0.4, foreign, (ledger, 6))
    timer.start()
    with pytest.raises(LeaseHeld, match="process 1 on elsewhere, since noon"):
        Lease(ledger).acquire()
    timer.join()


def test_the_lease_beats_and_knows_when_it_is_lost(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.02)
    with held_lease(ledger) as lease:
        wait_until(lambda: content(ledger)["beats"] > 2)
        lease.check()
        # Written more than once, as another run's beats would be: a beat of ours may fall between two of them.
        wait_until(lambda: foreign(ledger, 0) or lease.lost.is_set())
        with pytest.raises(LeaseHeld, match="taken over"):
            lease.check()
    assert content(ledger)["id"] == "theirs", "release leaves another's lease alone"


def test_a_store_that_does_not_answer_is_no_lost_lease(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.02)
    with held_lease(ledger) as lease:
        with monkeypatch.context() as patch:
            failures: list[int] = []

            def fail(path: str) -> bytes:
                failures.append(1)
                raise DataError("the store cannot be reached")

            patch.setattr(ledger.storage, "read_bytes", fail)
            wait_until(lambda: len(failures) > 2)
        wait_until(lambda: content(ledger)["beats"] > 1)
        lease.check()
