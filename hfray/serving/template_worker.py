"""The program that renders chat templates apart from the model: `python -m hfray.serving.template_worker FD ...`. Knows
Transformers' renderer and limits of the system; not tokenizers, not requests.

A template is a program of the model's author, in a sandbox that limits what it can touch, not how long it runs or how
much it writes. So a small first process, which renders nothing itself, forks a worker for each socket that it is given,
and another one when a worker is killed; that takes milliseconds, because everything has been imported. A worker is
killed by the kernel when its time is over. Frames are JSON, so that nothing that a template made is ever unpickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import sys
from typing import Any

MAX_RENDER_S = 1.0
MAX_ADDED_BYTES = 1 << 20
"""How much longer than its request a prompt may be."""
MAX_ADDED_MEMORY_BYTES = 256 << 20
"""What a worker may take beyond what it begins with."""
_HEAD = struct.Struct("!I")


def write_frame(connection: socket.socket, value: Any) -> int:
    """Its length in bytes. Raises OSError."""
    data = json.dumps(value).encode("ascii")
    connection.sendall(_HEAD.pack(len(data)) + data)
    return len(data)


def read_frame(connection: socket.socket) -> bytes | None:
    """None at the end. Raises OSError, also for a frame that is cut."""
    head = _read(connection, _HEAD.size)
    if not head:
        return None
    data = _read(connection, _HEAD.unpack(head)[0])
    if data is None:
        raise ConnectionError("a frame was cut")
    return data


def _read(connection: socket.socket, num_bytes: int) -> bytes | None:
    data = bytearray()
    while len(data) < num_bytes:
        part = connection.recv(min(num_bytes - len(data), 1 << 20))
        if not part:
            if data:
                raise ConnectionError("a frame was cut")
            return None
        data += part
    return bytes(data)


def main(fds: list[int]) -> None:
    """Keeps a worker at each socket until the other ends are closed."""
    from transformers.utils import chat_template_utils  # noqa: F401 - so that workers have it from the start

    connections = [socket.socket(fileno=fd) for fd in fds]
    workers = {_fork(connection): connection for connection in connections}
    while workers:
        pid, status = os.wait()
        connection = workers.pop(pid)
        if status == 0:
            continue
        with contextlib.suppress(OSError):  # nobody is there any more
            write_frame(connection, {"killed": True})
            workers[_fork(connection)] = connection


def _fork(connection: socket.socket) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        _work(connection)
        status = 0
    finally:
        os._exit(status)


def _work(connection: socket.socket) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the kernel ends the process, whatever it is doing
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _limit_memory()
    while (data := read_frame(connection)) is not None:
        signal.setitimer(signal.ITIMER_REAL, MAX_RENDER_S)
        reply = _reply(data)
        signal.setitimer(signal.ITIMER_REAL, 0)
        write_frame(connection, reply)


def _limit_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:  # Linux has it
        used_bytes = int(file.read().split()[0]) * resource.getpagesize()
        limit_bytes = used_bytes + MAX_ADDED_MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))


def _reply(data: bytes) -> dict[str, Any]:
    from jinja2.exceptions import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        asked = json.loads(data)
        (text,), _ = render_jinja_template(
            conversations=[asked["messages"]],
            tools=asked["tools"],
            chat_template=asked["template"],
            add_generation_prompt=not asked["prefilled"],
            continue_final_message=asked["prefilled"],
            **asked["special_tokens"],
        )
        if len(text.encode("utf-8", "surrogatepass")) > len(data) + MAX_ADDED_BYTES:
            return {"error": "it writes too long a prompt"}
        return {"text": text}
    except TemplateError as error:  # the words of the template's author
        return {"error": " ".join(str(error).split())[:300]}
    except MemoryError:
        return {"error": "it takes too much memory"}
    except Exception as error:
        return {"error": type(error).__name__}


if __name__ == "__main__":
    main([int(each) for each in sys.argv[1:]])
