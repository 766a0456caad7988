"""`kind: export`: one Ray task makes the model in a draft folder and publishes it. Knows jobs and ledgers; how a model
is merged, quantised and saved is `models.export`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfray.data.layout import Layout
from hfray.data.lease import Lease
from hfray.data.ledger import SUCCESS, Ledger
from hfray.data.publish import draft_folder, publish, published, unpublish
from hfray.data.storage import Storage
from hfray.errors import SpecError
from hfray.kinds.cluster import Cluster, as_hfray_error
from hfray.kinds.job import JobRun
from hfray.kinds.pool import pool_size
from hfray.kinds.report import ModelFacts, Report
from hfray.kinds.versions import versions
from hfray.models.export import ExportSource, export_model, find_export
from hfray.models.result_files import FACTS_FILE, is_model_file, is_weights
from hfray.spec.export import ExportJob
from hfray.spec.fields import fingerprint, identity_of
from hfray.spec.sections import WorkersSpec
from hfray.spec.yaml_lines import dump

POLL_S = 0.5
LAST = ("config.json", FACTS_FILE)
"""Without these a folder is no model."""


class ExportRun(JobRun[ExportJob]):
    """One run of an export job."""

    _source: ExportSource

    def _check(self) -> ExportJob:
        job = self._job
        self._source = found = find_export(job.model, job.task, job.labels)
        refuse_same(job.output.path, found)
        spec = found.model.spec
        keys = ("path", "revision", "adapter", "adapter_revision")
        return job.model_copy(update={"model": job.model.model_copy(update={key: getattr(spec, key) for key in keys})})

    def _make_plan(self, ledger: Ledger, ray_cluster: Cluster) -> None:
        identity = {"spec": identity_of(self._job), "model": self._source.identity()}
        self._fingerprint = fingerprint(identity)
        self._identity = identity | {"fingerprint": self._fingerprint}
        self._ledger = self._output(self._fingerprint)

    def _index(self, ledger: Ledger, ray_cluster: Cluster) -> dict[str, Any]:
        return {}  # an export has no rows

    def _output(self, fingerprint: str) -> Ledger:
        return Ledger(self._job.output.path, "parquet", fingerprint, layout=Layout("_work", "parquet"))

    def _claim(self, opening: Ledger, *, restart: bool) -> None:
        refuse_foreign(opening)
        if restart:
            opening.delete(SUCCESS)
            unpublish(opening, LAST)
        super()._claim(opening, restart=restart)

    def _work(self, ray_cluster: Cluster, lease: Lease, *, retry_errors: bool) -> Report:
        self._progress.phase("starting ray")
        ray_cluster.connect()
        pool_size(ray_cluster, WorkersSpec(cpus=self._job.workers.cpus, gpus=self._job.workers.gpus))
        ray_cluster.probe([], self._ledger.storage)
        self._progress.phase("exporting")
        done = self._export(lease)
        self._progress.phase("finishing")
        lease.check()
        self._model = done.model.model_dump()
        report = self._report("complete", "", task=done.task, size_bytes=sum(done.files.values()))
        self._write_report(report)
        extra = {"hfray": report.versions["hfray"], "files": done.files}
        self._ledger.write_success(self._fingerprint, [], {}, extra)
        self._ledger.sweep_attempts()
        return report

    def _export(self, lease: Lease) -> Done:
        import ray

        workers = self._job.workers
        task = ray.remote(
            num_cpus=workers.cpus,
            num_gpus=workers.gpus or None,
            memory=None if workers.memory_gb is None else workers.memory_gb * 2**30,
            max_retries=3,
        )(export)
        answer = task.remote(self._job, self._source, self._ledger)
        try:
            while not ray.wait([answer], timeout=POLL_S)[0]:
                lease.check()
            found: Done = ray.get(answer)
        except Exception as error:
            raise as_hfray_error(error) from error
        return found


@dataclass(frozen=True)
class Done:
    """What the worker has made."""

    model: ModelFacts
    task: str | None
    files: dict[str, int]
    """Name to size in bytes, of all that was published."""
    seconds: float


def export(job: ExportJob, source: ExportSource, ledger: Ledger) -> Done:
    """Runs on a worker."""
    import torch

    from hfray.models.load import pick_device

    started_at = time.time()
    torch.set_num_threads(max(1, int(job.workers.cpus)))
    device = pick_device("auto" if job.workers.gpus else "cpu")
    told = {"name": job.name, "spec": dump(job.model_dump(mode="json")), "versions": versions()}
    with draft_folder(ledger) as folder:
        exported = export_model(job.model, source, folder, told, device)
        files = publish(ledger, folder, LAST)
    facts = exported.facts
    model = ModelFacts(
        path=job.model.path,
        revision=job.model.revision,
        architecture=facts.architecture,
        parameters=facts.parameters,
        dtype=facts.dtype,
        quantization=facts.quantization,
        adapter=job.model.adapter,
        bytes_before=exported.bytes_before,
        bytes_after=exported.bytes_after,
        device=str(device),
    )
    task = facts.task.get("name")
    return Done(model, None if task is None else str(task), files, time.time() - started_at)


def refuse_same(output: str, source: ExportSource) -> None:
    """Raises SpecError for an output that is the model itself, which starting over would remove."""
    storage = Storage(output)
    if not storage.is_local:
        return
    parts = [part for part in (source.model.source, source.model.adapter) if part is not None and part.is_local]
    if storage.local_path("").resolve() in [Path(part.path).resolve() for part in parts]:
        raise SpecError(f"output.path: {output} is the model itself; choose another folder")


def refuse_foreign(ledger: Ledger) -> None:
    """Raises SpecError for a folder with a model in it that no export has put there: it would be written over."""
    ours = published(ledger)
    names = [name for name in ledger.storage.names("") if is_model_file(name) and name not in ours]
    if ledger.identity() is not None:  # an author may have added a model card since
        names = [name for name in names if is_weights(name) or name in LAST]
    if names:
        raise SpecError(
            f"output.path: {ledger.url} holds files that this job has not written ({', '.join(names[:3])}); choose "
            "another folder, or empty this one"
        )
