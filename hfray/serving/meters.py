"""What a gateway measures, as Prometheus metrics that Ray exports on every node. Knows Ray's metrics; not requests.

Metrics of a model's process are in `model_meters.py`. Names begin with `ray_hfray_`, as Ray exports them.
"""

from __future__ import annotations

from typing import Any

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
TOKEN_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
NO_KEY = "none"


class Meters:
    """Measures nothing: what is used where metrics are off."""

    def request(self, model: str, key: str | None, route: str, status: int, seconds: float) -> None:
        """A request was answered."""

    def computed(self, model: str, seconds: float, compute_s: float) -> None:
        """A reply came back: after so long, of which the replica had it so long."""

    def first_token(self, model: str, key: str | None, seconds: float) -> None:
        """The first piece of a stream was there."""

    def per_token(self, model: str, key: str | None, seconds: float) -> None:
        """The time between two tokens of a stream, on its average."""

    def tokens(self, model: str, key: str | None, num_tokens: int, num_new_tokens: int) -> None:
        """A request was computed."""

    def waiting(self, model: str, num_requests: int) -> None:
        """So many requests wait or are on their way now."""


class RayMeters(Meters):
    """In a process that is part of a Ray cluster."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        def seconds(name: str, description: str, bounds: Any, tags: tuple[str, ...] = ("model",)) -> Any:
            return Histogram(f"hfray_{name}", description, boundaries=list(bounds), tag_keys=tags)

        by_key = ("model", "key")
        asked = (*by_key, "route", "status")
        self._requests = Counter("hfray_requests", "Requests answered", tag_keys=asked)
        self._seconds = seconds(
            "request_seconds", "From a request's arrival to its answer", SECONDS, ("model", "route")
        )
        self._overhead = seconds("overhead_seconds", "What a reply took beside the replica's work", SECONDS)
        self._first = seconds("first_token_seconds", "From a stream's request to its first piece", SECONDS, by_key)
        self._per_token = seconds("token_seconds", "Between two tokens of a stream", TOKEN_SECONDS, by_key)
        self._tokens = Counter("hfray_tokens", "Tokens computed", tag_keys=("model", "key", "kind"))
        self._waiting = Gauge("hfray_waiting_requests", "Requests waiting or on their way", tag_keys=("model",))

    def request(self, model: str, key: str | None, route: str, status: int, seconds: float) -> None:
        self._requests.inc(1, {"model": model, "key": key or NO_KEY, "route": route, "status": str(status)})
        self._seconds.observe(seconds, {"model": model, "route": route})

    def computed(self, model: str, seconds: float, compute_s: float) -> None:
        self._overhead.observe(max(0.0, seconds - compute_s), {"model": model})

    def first_token(self, model: str, key: str | None, seconds: float) -> None:
        self._first.observe(seconds, {"model": model, "key": key or NO_KEY})

    def per_token(self, model: str, key: str | None, seconds: float) -> None:
        self._per_token.observe(seconds, {"model": model, "key": key or NO_KEY})

    def tokens(self, model: str, key: str | None, num_tokens: int, num_new_tokens: int) -> None:
        for kind, number in (("input", num_tokens), ("generated", num_new_tokens)):
            if number:
                self._tokens.inc(number, {"model": model, "key": key or NO_KEY, "kind": kind})

    def waiting(self, model: str, num_requests: int) -> None:
        self._waiting.set(num_requests, {"model": model})
