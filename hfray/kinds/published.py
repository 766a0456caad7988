"""Jobs that leave a model at the top of their output. Knows which files are a model's; not how it is made."""

from __future__ import annotations

from typing import Any

from hfray.data.layout import Layout
from hfray.data.ledger import SUCCESS, Ledger
from hfray.data.publish import published, unpublish
from hfray.errors import SpecError
from hfray.kinds.cluster import Cluster
from hfray.kinds.job import J, JobRun
from hfray.models.result_files import LAST, is_model_file, is_weights


class ModelRun(JobRun[J]):
    """One run of such a job; it has no parts of its own."""

    def _index(self, ledger: Ledger, ray_cluster: Cluster) -> dict[str, Any]:
        return {}

    def _output(self, fingerprint: str) -> Ledger:
        return Ledger(self._job.output.path, "parquet", fingerprint, layout=Layout("_work", "parquet"))

    def _check_output(self, opening: Ledger) -> None:
        """Raises SpecError for a folder with a model in it that no job has published there: it would be written
        over."""
        ours = published(opening)
        names = [name for name in opening.storage.names("") if is_model_file(name) and name not in ours]
        if opening.identity() is not None:  # an author may have added a model card since
            names = [name for name in names if is_weights(name) or name in LAST]
        if names:
            raise SpecError(
                f"output.path: {opening.url} holds files that this job has not written ({', '.join(names[:3])}); "
                "choose another folder, or empty this one"
            )

    def _claim(self, opening: Ledger, *, restart: bool) -> None:
        if restart:
            opening.delete(SUCCESS)
            unpublish(opening, LAST)
        super()._claim(opening, restart=restart)
