"""From the input of a job to its plan: list, index what is not cached, put together. Small inputs are indexed here,
large ones by Ray tasks, one for each file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hfray.data.base import FileIndex, FileRef, ReadOptions
from hfray.data.formats import index_file
from hfray.data.ledger import Ledger
from hfray.data.listing import list_files
from hfray.data.plan import IndexCache, Plan
from hfray.errors import DataError, HfrayError
from hfray.kinds.cluster import Cluster
from hfray.kinds.ray_errors import root_cause
from hfray.spec.sections import InputSpec

INDEX_FOLDER = "_work/index"
LARGE_BYTES = 256 * 2**20  # above this a pass over the files is worth starting Ray for
FOOTER_THREADS = 16
TASKS_AT_ONCE = 256


def index_input(
    spec: InputSpec, shard_rows: int, ledger: Ledger, cluster: Cluster, phase: Callable[[str], None]
) -> tuple[Plan, dict[str, str]]:
    """The plan of all readable files, and why each of the others cannot be read.

    Raises SpecError for paths that lead nowhere, DataError when no file can be read.
    """
    return index_files(_files(spec, spec.split), spec, shard_rows, ledger, cluster, phase)


def index_splits(
    spec: InputSpec,
    splits: Sequence[str],
    shard_rows: int,
    ledger: Ledger,
    cluster: Cluster,
    phase: Callable[[str], None],
) -> tuple[Plan, dict[str, str], list[int]]:
    """As `index_input`, of several splits one after another; and how many rows each of them has."""
    files = [_files(spec, split) for split in splits]
    plan, failures = index_files([file for each in files for file in each], spec, shard_rows, ledger, cluster, phase)
    num_rows = {index.file.url: index.num_rows for index in plan.indexes}
    return plan, failures, [sum(num_rows.get(file.url, 0) for file in each) for each in files]


def _files(spec: InputSpec, split: str | None) -> list[FileRef]:
    paths = [f"{path}@{spec.revision}" for path in spec.path] if spec.revision else spec.path
    return list_files(paths, spec.format, split=split, config=spec.name)


def index_files(
    files: Sequence[FileRef],
    spec: InputSpec,
    shard_rows: int,
    ledger: Ledger,
    cluster: Cluster,
    phase: Callable[[str], None],
) -> tuple[Plan, dict[str, str]]:
    """The plan of those files that can be read, and why each of the others cannot."""
    options = ReadOptions(spec.delimiter)
    cache = IndexCache(ledger.storage, INDEX_FOLDER)
    indexes: dict[str, FileIndex] = {}
    failures: dict[str, str] = {}
    for file in files:
        if (cached := cache.load(file, shard_rows, options)) is not None:
            indexes[file.url] = cached
    missing = [file for file in files if file.url not in indexes]
    spool = ledger.storage.url(INDEX_FOLDER)
    answers = _index_on_ray if _is_large(missing) else _index_here
    for number, (file, answer) in enumerate(answers(missing, shard_rows, spool, options, cluster), 1):
        if isinstance(answer, FileIndex):
            indexes[file.url] = answer
            cache.save(answer)
        else:
            failures[file.url] = answer
        if len(missing) > 1:
            phase(f"indexing {number:,}/{len(missing):,} files")
    if failures and not indexes:
        raise DataError("no input file can be read:\n  " + "\n  ".join(list(failures.values())[:10]))
    ordered = [indexes[file.url] for file in files if file.url in indexes]
    return Plan(ordered, spec.limit, select=spec.select), failures


Answers = Iterator[tuple[FileRef, FileIndex | str]]


def _is_large(files: Sequence[FileRef]) -> bool:
    return len(files) > 1 and sum(file.size_bytes for file in files if file.format != "parquet") > LARGE_BYTES


def _index_or_reason(file: FileRef, shard_rows: int, spool: str, options: ReadOptions) -> FileIndex | str:
    try:
        return index_file(file, shard_rows, spool, options)
    except DataError as error:
        return str(error)


def _index_here(
    files: Sequence[FileRef], shard_rows: int, spool: str, options: ReadOptions, cluster: Cluster
) -> Answers:
    with ThreadPoolExecutor(FOOTER_THREADS) as pool:  # footers wait for the store, not for the processor
        answers = pool.map(lambda file: _index_or_reason(file, shard_rows, spool, options), files)
        yield from zip(files, answers, strict=True)


def _index_on_ray(
    files: Sequence[FileRef], shard_rows: int, spool: str, options: ReadOptions, cluster: Cluster
) -> Answers:
    cluster.connect()
    import ray

    task = ray.remote(num_cpus=1, max_retries=3)(_index_or_reason)
    waiting: dict[Any, FileRef] = {}
    queue = list(reversed(files))
    while queue or waiting:
        while queue and len(waiting) < TASKS_AT_ONCE:
            file = queue.pop()
            waiting[task.remote(file, shard_rows, spool, options)] = file
        done, _ = ray.wait(list(waiting), num_returns=1)
        for reference in done:
            try:
                yield waiting.pop(reference), ray.get(reference)
            except Exception as error:
                raise root_cause(error, HfrayError) or DataError(f"a file could not be indexed: {error}") from error
