"""Options that commands of every group have, and how a job file is read. Knows the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hfray.errors import SpecError

if TYPE_CHECKING:
    from hfray.spec.kinds import Job

Debug = Annotated[bool, typer.Option("--debug", help="Show everything: logs, Ray's chatter, tracebacks.")]
Address = Annotated[
    str | None,
    typer.Option("--address", help="The cluster's dashboard, such as http://head:8265; default RAY_DASHBOARD_ADDRESS."),
]
AllowOpen = Annotated[
    bool, typer.Option("--allow-open", help="Use a cluster that asks nobody for a token. Whoever reaches it runs code.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

JobFile = Annotated[Path, typer.Argument(help="The job file.", metavar="JOB.yaml", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a field: --set workers.max=4. May be repeated."),
]


def load_job_file(file: Path, overrides: Sequence[str]) -> Job:
    """A job that is right as far as its file alone can tell."""
    from hfray.data.where import compile_where
    from hfray.spec.kinds import inputs_of
    from hfray.spec.load import cite, load_job

    job = load_job(file, overrides)
    for key, spec in inputs_of(job).items():
        try:
            if spec.where is not None:
                compile_where(spec.where)
        except SpecError as error:
            reason = str(error).removeprefix("where: ")
            raise SpecError(f"{cite(file, f'{key}.where', overrides)}: {reason}") from None
    return job
