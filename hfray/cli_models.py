"""The commands for models as files: export, push, cache. Knows arguments and what is printed; the rest is imported by
the command that needs it."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

from hfray.cli_options import AsJson, Debug
from hfray.errors import SpecError
from hfray.tables import new_table, print_table

if TYPE_CHECKING:
    from hfray.models.cache import CachedRevision
    from hfray.spec.export import ExportJob

cache = typer.Typer(
    name="cache",
    help="The models and data sets that the hub's client keeps on this machine.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
SHOWN_HASH_CHARS = 12


def export(
    model: Annotated[
        str,
        typer.Argument(
            help="A training result, a hub id, a folder, or a job file.", metavar="MODEL|JOB.yaml", show_default=False
        ),
    ],
    output: Annotated[str | None, typer.Option("--output", help="The new folder; s3:// and the like too.")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub model.")] = None,
    adapter: Annotated[str | None, typer.Option("--adapter", help="A PEFT adapter to merge.")] = None,
    quantization: Annotated[
        Literal["none", "int8", "nf4", "fp4"] | None, typer.Option("--quantization", help="Quantise, after merging.")
    ] = None,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"] | None, typer.Option("--dtype", help="Of the saved weights.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="Whose head it has, where nothing says so.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Throw the output away and start over.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    debug: Debug = False,
) -> None:
    """Merge an adapter, quantise once, or change the precision: a folder that loads as it is.

    With a job file it is `hfray run`; `hfray explain export` shows what such a file can say.
    """
    section = {"path": model, "revision": revision, "adapter": adapter, "quantization": quantization, "dtype": dtype}
    given = {key: value for key, value in section.items() if value is not None}
    if model.endswith((".yaml", ".yml")):
        from hfray.spec.load import load_job

        if len(given) > 1 or output is not None or task is not None:
            raise SpecError(f"{model}: a job file says all this itself; override it with hfray run {model} --set ...")
        job: Any = load_job(model)
        if job.kind != "export":
            raise SpecError(f"{model}: a job of kind {job.kind}; hfray run {model}")
    else:
        job = _job(given, output, task)
    from hfray.kinds.run import run_job

    path = model if model.endswith((".yaml", ".yml")) else ""
    raise typer.Exit(run_job(job, job_path=path, restart=restart, retry_errors=False, debug=debug, quiet=quiet))


def _job(model: dict[str, Any], output: str | None, task: str | None) -> ExportJob:
    from pydantic import ValidationError

    from hfray.spec.export import ExportJob
    from hfray.spec.problems import problems

    if output is None:
        raise SpecError("--output: missing; the folder to write, such as out/model-nf4")
    name = re.sub(r"[^a-z0-9._-]+", "-", Path(output).name.lower()).strip("._-")[:64] or "export"
    spec = {"name": name, "model": model, "output": {"path": output}, "task": task}
    try:
        return ExportJob.model_validate(spec)
    except ValidationError as error:
        found = problems(ExportJob, error.errors(include_url=False))
        raise SpecError("\n".join(f"--{keys[-1]}: {text}" for keys, text in found.items())) from None


def push(
    folder: Annotated[Path, typer.Argument(help="A training result or an export.", show_default=False)],
    repo_id: Annotated[str, typer.Argument(help="Where to: ORG/NAME.", metavar="REPO_ID", show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="Create the repository private.")] = False,
    revision: Annotated[str | None, typer.Option("--revision", help="A branch; created if need be.")] = None,
    message: Annotated[str | None, typer.Option("--message", help="Of the commit.")] = None,
    debug: Debug = False,
) -> None:
    """Publish a result folder on the hub, with its model card.

    The token is the environment's (HF_TOKEN, or the file of `hf auth login`). Logs, checkpoints and pickled files stay.
    """
    from hfray.models.push import push as publish

    done = publish(folder, repo_id, private=private, revision=revision, message=message)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[green]published[/green]  {escape(done.url)}")
    console.print(f"[dim]commit {done.commit}, {len(done.files)} files: {escape(', '.join(done.files))}[/dim]")
    if done.removed:
        console.print(f"[dim]removed weights of an earlier model: {escape(', '.join(done.removed))}[/dim]")


@cache.command("list")
def list_cache(as_json: AsJson = False, debug: Debug = False) -> None:
    """Every revision, its size, and when it was last used."""
    from hfray.kinds import units
    from hfray.models.cache import read_cache

    content = read_cache()
    if as_json:
        print(json.dumps([each.as_dict() for each in content.revisions], indent=2))
        return
    _print_revisions(content.revisions)
    legend = f"{units.plural(len(content.revisions), 'revision')}, {units.size(content.size_bytes)} in {content.folder}"
    Console(highlight=False, soft_wrap=True).print(f"[dim]{escape(legend)}[/dim]")
    for problem in content.problems:
        Console(highlight=False, stderr=True, soft_wrap=True).print(f"[yellow]{escape(problem)}[/yellow]")


@cache.command()
def size(as_json: AsJson = False, debug: Debug = False) -> None:
    """How much disk it takes, and what hfray keeps beside it."""
    from hfray.kinds import units
    from hfray.models.cache import read_cache
    from hfray.scratch import own_folder

    content, logs = read_cache(), own_folder()
    logs_bytes = sum(file.stat().st_size for file in logs.glob("*.log"))
    facts = {
        "cache": {"folder": content.folder, "size_bytes": content.size_bytes},
        "interrupted downloads": {"folder": content.folder, "size_bytes": content.incomplete_bytes},
        "logs of hfray": {"folder": str(logs), "size_bytes": logs_bytes},
    }
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    table = new_table("what", "size", "where")
    for name, each in facts.items():
        table.add_row(f"[cyan]{name}[/cyan]", units.size(float(str(each["size_bytes"]))), escape(str(each["folder"])))
    print_table(table, "indexes of inputs lie in the outputs of their jobs, below _work")


@cache.command()
def prune(
    revisions: Annotated[
        list[str] | None,
        typer.Argument(help="Commits (seven digits do), ORG/NAME or ORG/NAME@BRANCH.", metavar="[REVISION...]"),
    ] = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="30d", help="Only what was not used for so long: m, h, d, w.")
    ] = None,
    keep: Annotated[
        int | None, typer.Option("--keep", metavar="N", help="Spare the latest N revisions of each repository.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and delete nothing.")] = False,
    debug: Debug = False,
) -> None:
    """Delete revisions: those named, those not used for long, or all but the latest."""
    from hfray.kinds import units
    from hfray.models.cache import choose, delete, read_cache, seconds_of

    older_than_s = None if older_than is None else seconds_of(older_than)
    chosen = choose(read_cache(), revisions or (), older_than_s=older_than_s, keep=keep, now=time.time())
    freed = delete(chosen, dry_run=dry_run)
    if chosen:
        _print_revisions(chosen)
    verb = "would be deleted" if dry_run else "deleted"
    Console(highlight=False, soft_wrap=True).print(
        f"{units.plural(len(chosen), 'revision')} {verb}, {units.size(freed)} free"
    )


def _print_revisions(revisions: tuple[CachedRevision, ...]) -> None:
    from hfray.kinds import units

    table = new_table("repository", "revision", "branches", "size", "last used")
    for each in revisions:
        name = each.repo if each.kind == "model" else f"{each.kind}s/{each.repo}"
        table.add_row(
            f"[cyan]{escape(name)}[/cyan]",
            each.revision[:SHOWN_HASH_CHARS],
            escape(", ".join(each.refs)),
            units.size(each.size_bytes),
            units.moment(each.last_used),
        )
    print_table(table)
