"""`kind: export`: one Ray task makes the model in a draft folder and publishes it. Knows jobs and ledgers; how a model
is merged, quantised and saved is `models.export`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hfray.data.lease import Lease
from hfray.data.ledger import Ledger
from hfray.data.publish import draft_folder, publish
from hfray.data.storage import Storage
from hfray.errors import SpecError
from hfray.kinds.cluster import Cluster
from hfray.kinds.pool import pool_size
from hfray.kinds.published import ModelRun
from hfray.kinds.ray_task import run_task
from hfray.kinds.report import ModelFacts, Report
from hfray.kinds.versions import versions
from hfray.models.export import ExportSource, export_model, find_export
from hfray.models.result_files import LAST
from hfray.spec.export import ExportJob
from hfray.spec.fields import fingerprint, identity_of
from hfray.spec.sections import WorkersSpec
from hfray.spec.yaml_lines import dump


class ExportRun(ModelRun[ExportJob]):
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

    def _work(self, ray_cluster: Cluster, lease: Lease, *, retry_errors: bool) -> Report:
        self._progress.phase("starting ray")
        ray_cluster.connect()
        workers = self._job.workers
        pool_size(ray_cluster, WorkersSpec(cpus=workers.cpus, gpus=workers.gpus, labels=workers.labels))
        ray_cluster.probe([], self._ledger.storage)
        self._progress.phase("exporting")
        done = run_task(self._job.workers, lease, export, self._job, self._source, self._ledger)
        self._progress.phase("finishing")
        lease.check()
        self._model = done.model.model_dump()
        report = self._report("complete", "", task=done.task, size_bytes=sum(done.files.values()))
        self._write_report(report)
        extra = {"hfray": report.versions["hfray"], "files": done.files}
        self._ledger.write_success(self._fingerprint, [], {}, extra)
        self._ledger.sweep_attempts()
        return report


@dataclass(frozen=True)
class Done:
    """What the worker has made."""

    model: ModelFacts
    task: str | None
    files: dict[str, int]
    """Name to size in bytes, of all that was published."""


def export(job: ExportJob, source: ExportSource, ledger: Ledger) -> Done:
    """Runs on a worker."""
    import torch

    from hfray.models.load import pick_device

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
    return Done(model, None if task is None else str(task), files)


def refuse_same(output: str, source: ExportSource) -> None:
    """Raises SpecError for an output that is the model itself, which starting over would remove."""
    storage = Storage(output)
    if not storage.is_local:
        return
    parts = [part for part in (source.model.source, source.model.adapter) if part is not None and part.is_local]
    if storage.local_path("").resolve() in [Path(part.path).resolve() for part in parts]:
        raise SpecError(f"output.path: {output} is the model itself; choose another folder")
