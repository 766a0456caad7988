"""A Ray Serve deployment that answers at once, behind Serve's own proxy. A side of benchmarks/serve.py."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

import ray
from ray import serve
from starlette.requests import Request


@serve.deployment(max_ongoing_requests=100)
class Replica:
    def answer(self, text: str) -> list[dict[str, Any]]:
        return [{"label": "LABEL_0", "score": 0.5}]


@serve.deployment(max_ongoing_requests=100)
class Gateway:
    def __init__(self, replica: Any) -> None:
        self._replica = replica

    async def __call__(self, request: Request) -> Any:
        body = await request.json() if request.method == "POST" else {"inputs": ""}
        return await self._replica.answer.remote(body["inputs"])


def main(port: int) -> None:
    ended = threading.Event()
    ray.init(address="local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    signal.signal(signal.SIGTERM, lambda signum, frame: ended.set())
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(Gateway.bind(Replica.bind()))
    ended.wait()
    serve.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
