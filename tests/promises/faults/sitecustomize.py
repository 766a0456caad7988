"""Faults for real processes: on PYTHONPATH, this file wraps a few of hfray's functions as they are imported.

Nothing in hfray knows of it. What happens is read at call time from files in the folder $HFRAY_FAULTS:

    kill-before, kill-after   a piece of a path: once, around the write of that file, the driver and this process die
    slow                      seconds that each commit of a part takes longer
    full-fsync, full-link     a piece of a path: as long as it is there, to sync or to link such a file finds no space
    hub                       endpoint and cache folder of the model hub, one a line, in place of the real ones
    no-lease                  the lease is never held nor checked
    flaky                     the tokenizer raises on texts that contain the word
    loads                     (written) one line for each predictor that is made
    model                     what becomes of each forward pass: raise, die, stick or nan; if there is a file
                              `model-pids`, in those processes only
    driver                    (written by the rig) the pid that kill-before and kill-after mean
"""

from __future__ import annotations

import errno
import importlib.machinery
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def _text(name: str) -> str:
    try:
        return (Path(os.environ["HFRAY_FAULTS"]) / name).read_text()
    except OSError:
        return ""


def _maybe_kill(name: str, path: str) -> None:
    piece = _text(name)
    if not piece or piece not in path:
        return
    folder = Path(os.environ["HFRAY_FAULTS"])
    try:
        os.rename(folder / name, folder / f"{name}-done")  # once
    except OSError:
        return
    driver = int(_text("driver"))
    os.kill(driver, signal.SIGKILL)
    if driver != os.getpid():
        os.kill(os.getpid(), signal.SIGKILL)


def _around(method: Any) -> Any:
    def wrapped(self: Any, path: str, *args: Any) -> Any:
        if "/part-" in path:
            time.sleep(float(_text("slow") or 0))
        _maybe_kill("kill-before", self.url(path))
        answer = method(self, path, *args)
        _maybe_kill("kill-after", self.url(path))
        return answer

    return wrapped


def _patch_storage(module: Any) -> None:
    module.Storage.create_exclusive = _around(module.Storage.create_exclusive)
    module.Storage.replace = _around(module.Storage.replace)


class _FullDisk:
    """The module `os` of a disk that says only at a sync, or at a link, that it has no room."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, descriptor: int) -> None:
        _refuse("full-fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
        os.fsync(descriptor)

    def link(self, source: str, target: str) -> None:
        _refuse("full-link", target)
        os.link(source, target)


def _refuse(name: str, path: str) -> None:
    piece = _text(name)
    if piece and piece in path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def _patch_store_local(module: Any) -> None:
    module.os = _FullDisk()


def _aim_hub() -> None:
    if where := _text("hub"):
        from tests.hub_stand_in import point_at

        endpoint, cache = where.splitlines()
        point_at(SimpleNamespace(setattr=setattr), endpoint, Path(cache))


def _patch_source(module: Any) -> None:
    resolve = module.resolve_source

    def wrapped(*args: Any, **options: Any) -> Any:
        _aim_hub()
        return resolve(*args, **options)

    module.resolve_source = wrapped


def _patch_lease(module: Any) -> None:
    for name in ("acquire", "check", "release"):
        setattr(module.Lease, name, _unless_off(getattr(module.Lease, name)))
    module.refuse_live_holder = _unless_off(module.refuse_live_holder)


def _unless_off(method: Any) -> Any:
    def wrapped(self: Any) -> None:
        if not _text("no-lease"):
            method(self)

    return wrapped


def _patch_text(module: Any) -> None:
    encode = module.TextEncoder._encode_batch

    def wrapped(self: Any, inputs: list[Any]) -> Any:
        word = _text("flaky")
        if word and any(word in str(each) for each in inputs):
            raise RuntimeError("the tokenizer is ill today")
        return encode(self, inputs)

    module.TextEncoder._encode_batch = wrapped


def _patch_workers(module: Any) -> None:
    predictor = module.WorkerFactory._predictor

    def wrapped(self: Any, *args: Any) -> Any:
        with (Path(os.environ["HFRAY_FAULTS"]) / "loads").open("a") as file:
            file.write(f"{os.getpid()}\n")
        _aim_hub()
        return predictor(self, *args)

    module.WorkerFactory._predictor = wrapped


def _patch_batch(module: Any) -> None:
    run_batch = module.run_batch

    def wrapped(loaded: Any, items: Any, *more: Any) -> Any:
        what = _befallen()
        outputs = run_batch(loaded, items, *more)
        if what == "nan":
            for output in outputs:
                output["logits"] = output["logits"] * float("nan")
        return outputs

    module.run_batch = wrapped


def _patch_runner(module: Any) -> None:
    scores = module.Runner._scores

    def wrapped(self: Any, step: Any) -> Any:
        what = _befallen()
        found = scores(self, step)
        return found * float("nan") if what == "nan" else found

    module.Runner._scores = wrapped


def _befallen() -> str:
    """What becomes of this forward pass, once it has come to that."""
    what, pids = _text("model"), _text("model-pids").split()
    if pids and str(os.getpid()) not in pids:
        return ""
    if what == "raise":
        raise RuntimeError("the model is ill today")
    if what == "die":
        raise SystemExit("the thread of the model ends")
    if what == "stick":
        while _text("model"):
            time.sleep(0.02)
    return what


_PATCHES = {
    "hfray.engines.batch": _patch_batch,
    "hfray.engines.continuous.runner": _patch_runner,
    "hfray.data.storage": _patch_storage,
    "hfray.data.store_local": _patch_store_local,
    "hfray.data.lease": _patch_lease,
    "hfray.models.source": _patch_source,
    "hfray.tasks.text": _patch_text,
    "hfray.kinds.workers": _patch_workers,
}


class _Finder:
    """Finds what the usual path finder finds, and patches it once it is loaded."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        if name not in _PATCHES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                execute(module)
                _PATCHES[name](module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if "HFRAY_FAULTS" in os.environ:
    sys.meta_path.insert(0, _Finder)  # type: ignore[arg-type]
