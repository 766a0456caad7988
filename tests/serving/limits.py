"""What tests of keys and quotas share: a clock that is set by hand, and a key with limits."""

from __future__ import annotations

from hfray.serving.keys_file import Key

SHA = "a" * 64
SLACK = 1e-4  # the rounding that a bucket forgives, and floats


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def key(**limits: int) -> Key:
    return Key(id="alice", sha256=SHA, **limits)  # type: ignore[arg-type]
