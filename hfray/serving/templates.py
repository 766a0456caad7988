"""Chat templates of a served model, rendered in processes that are killed when a template does not end. Knows the
program in `template_worker.py`; not requests, not what becomes of a prompt."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from hfray.errors import EngineError, RowError
from hfray.serving.template_worker import MAX_RENDER_S, read_frame, write_frame
from hfray.tasks.messages import Message

NUM_WORKERS = 4
"""Chats that are rendered at once: as many endless ones must come together before others wait for them."""
START_S = 120.0
GRACE_S = 5.0
"""Beyond a worker's own time, for a machine that is busy."""
_PROGRAM = "hfray.serving.template_worker"
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "HOME", "TMPDIR", "LD_LIBRARY_PATH")


class TemplateProcess:
    """The renderer of one replica. Thread-safe; close it."""

    def __init__(self, special_tokens: Mapping[str, Any], *, num_workers: int = NUM_WORKERS) -> None:
        """special_tokens: what the tokenizer gives to its templates. Raises EngineError where no process starts."""
        self._special_tokens = {name: _text_of(value) for name, value in special_tokens.items()}
        self._num_workers = num_workers
        self._lock = threading.Lock()
        self._free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._group = self._start()

    def render(self, template: str, messages: list[Message], tools: list[Any] | None, prefilled: bool) -> str:
        """prefilled: the last message is the beginning of the answer.

        Raises RowError ChatTemplate for what the template refuses or does not do in its time and memory; EngineError
        when no process answers."""
        asked = {
            "template": template,
            "messages": messages,
            "tools": tools,
            "prefilled": prefilled,
            "special_tokens": self._special_tokens,
        }
        for _ in range(2):
            try:
                worker = self._free.get(timeout=START_S)
            except queue.Empty:
                break
            try:
                reply = worker.ask(asked, MAX_RENDER_S + GRACE_S)
            except (OSError, ValueError):
                self._replace(worker)
                continue
            except BaseException:
                self._replace(worker)  # its answer would be taken for that of the next
                raise
            if worker.group is self._group:
                self._free.put(worker)
            return _text(reply)
        raise EngineError("the process that renders chat templates does not answer")

    def close(self) -> None:
        with self._lock:
            self._group.close()

    def _start(self) -> _Group:
        group = _Group(self._num_workers)
        for worker in group.workers:
            self._free.put(worker)
        return group

    def _replace(self, broken: _Worker) -> None:
        """All of them: what else is wrong with the first process or its socket nobody knows."""
        with self._lock:
            if broken.group is not self._group:
                return  # somebody else did
            self._group.close()
            while not self._free.empty():
                self._free.get_nowait()
            self._group = self._start()


class _Worker:
    """One socket, at whose other end there is always a worker."""

    def __init__(self, group: _Group, connection: socket.socket) -> None:
        self.group = group
        self.connection = connection

    def ask(self, value: Any, timeout_s: float) -> dict[str, Any]:
        """Raises OSError, ValueError."""
        self.connection.settimeout(timeout_s)
        write_frame(self.connection, value)
        data = read_frame(self.connection)
        if data is None:
            raise ConnectionError("the worker is gone")
        reply: dict[str, Any] = json.loads(data)
        return reply


class _Group:
    """The first process and its workers."""

    def __init__(self, num_workers: int) -> None:
        pairs = [socket.socketpair() for _ in range(num_workers)]
        self.workers = [_Worker(self, ours) for ours, _ in pairs]
        fds = [theirs.fileno() for _, theirs in pairs]
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HF_HUB_OFFLINE": "1"}
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # nothing that a fork would leave behind
        self._process = subprocess.Popen(
            [sys.executable, "-m", _PROGRAM, *map(str, fds)],
            pass_fds=fds,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        for _, theirs in pairs:
            theirs.close()
        try:
            for worker in self.workers:
                nothing: Any = {"template": "", "messages": [], "tools": None, "prefilled": False, "special_tokens": {}}
                worker.ask(nothing, START_S)
        except (OSError, ValueError):
            self.close()
            raise EngineError("the process that renders chat templates does not start; its errors are above") from None

    def close(self) -> None:
        for worker in self.workers:
            worker.connection.close()
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
        self._process.wait()


def _text(reply: Mapping[str, Any]) -> str:
    if "text" in reply:
        return str(reply["text"])
    problem = f"did not end within {MAX_RENDER_S:g} s" if reply.get("killed") else None
    reason = problem or f"refused the messages: {reply.get('error')}"
    raise RowError(f"the chat template {reason}", type="ChatTemplate")


def _text_of(value: Any) -> Any:
    return [str(each) for each in value] if isinstance(value, list | tuple) else str(value)
