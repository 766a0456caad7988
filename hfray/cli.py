"""The command line. Knows commands, consoles and exit codes; everything else is imported by the command that needs it,
so that `check`, `explain` and `tasks` answer at once."""

from __future__ import annotations

import gc
import json
import select
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core
from rich.console import Console
from rich.markup import escape

import hfray
from hfray import cli_keys, cli_models, cli_render, cli_serving, cli_submit
from hfray.cli_options import AsJson, Debug, JobFile, Overrides, load_job_file
from hfray.errors import INTERRUPTED, EngineError, HfrayError, SpecError
from hfray.tables import new_table, print_table

if TYPE_CHECKING:
    from hfray.spec.explain import FieldRow


class _Commands(typer.core.TyperGroup):
    """Typer takes each broken pipe for a reader of the output who has gone, and ends without a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            if _reader_has_gone():
                raise
            raise EngineError(
                f"a process or a server that hfray spoke to is gone ({error}); run the same command again, with "
                "--debug to see which"
            ) from error


def _reader_has_gone() -> bool:
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


app = typer.Typer(
    name="hfray",
    cls=_Commands,
    help="Hugging Face models on Ray: tokenise, tune, score and serve, from one laptop to a cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"hfray {hfray.__version__}")
        raise typer.Exit


@app.command()
def run(
    job: JobFile,
    overrides: Overrides = None,
    restart: Annotated[bool, typer.Option("--restart", help="Throw the output away and start over.")] = False,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Score the failed rows again.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    debug: Debug = False,
) -> None:
    """Run a job on the Ray at hand: a local one, or the cluster of RAY_ADDRESS.

    The same command resumes a job that was stopped, and does nothing once it is complete.
    """
    spec = load_job_file(job, overrides or ())
    from hfray.kinds.run import run_job

    raise typer.Exit(
        run_job(spec, job_path=str(job), restart=restart, retry_errors=retry_errors, debug=debug, quiet=quiet)
    )


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="Job or Serve files.", metavar="FILE...", show_default=False)],
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Validate job files and Ray Serve files, in under a second and without Ray."""
    console, wrong = Console(highlight=False), 0
    for file in files:
        try:
            what = _checked(file, overrides or ())
        except HfrayError as error:
            wrong += 1
            _print_error(error, debug=debug)
        else:
            console.print(f"[green]ok[/green]  {escape(str(file))}  [dim]{what}[/dim]", soft_wrap=True)
    raise typer.Exit(SpecError.exit_code if wrong else 0)


def _checked(file: Path, overrides: Sequence[str]) -> str:
    """What a file is, in a few words, if it is right."""
    from hfray.spec.serve_file import is_serve_file, load_serve_file

    if is_serve_file(file):
        return f"serve {', '.join(load_serve_file(file).models)}"
    job = load_job_file(file, overrides)
    return f"{job.kind} {job.subject}"


@app.command()
def explain(
    topic: Annotated[
        str | None,
        typer.Argument(help="A kind, a task, or a field such as engine.max_batch_tokens.", metavar="[TOPIC]"),
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the kind's JSON Schema, for editors.")] = False,
    debug: Debug = False,
) -> None:
    """Every field, its default and meaning."""
    from hfray.spec.explain import explain as rows_of
    from hfray.spec.explain import json_schema

    if schema:
        print(json.dumps(json_schema(topic or "score"), indent=2, ensure_ascii=False))
        return
    table = new_table("field", "type", "default", "meaning")
    rows = rows_of(topic)
    for row in rows:
        table.add_row(*_explained(row))
    print_table(table, "hfray explain score: its fields" if topic is None else _LEGEND if _any_mark(rows) else "")


_LEGEND = "○ leaves the answers alone: may change between the runs of one job"


def _any_mark(rows: Sequence[FieldRow]) -> bool:
    return any(row.operational for row in rows)


def _explained(row: FieldRow) -> tuple[str, str, str, str]:
    section, dot, key = row.path.rpartition(".")
    mark = " [dim]○[/dim]" if row.operational else ""
    only = f"[dim]{escape(', '.join(row.members))}:[/dim] " if row.members else ""
    default = "[red]required[/red]" if row.required else escape(row.default)
    return (
        f"[dim]{escape(section)}{dot}[/dim][cyan]{escape(key)}[/cyan]{mark}",
        escape(row.type),
        default,
        only + escape(row.doc),
    )


@app.command()
def tasks(
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """The tasks, their columns and options."""
    from hfray.tasks import TASKS
    from hfray.tasks.base import TaskOptions

    described = [
        {
            "name": name,
            "summary": task.summary,
            "columns": list(task.columns),
            "optional_columns": list(task.optional_columns),
            "options": [field for field in task.Options.model_fields if field != "name"],
            "model": task.auto_model,
        }
        for name, task in TASKS.items()
    ]
    if as_json:
        print(json.dumps(described, indent=2))
        return
    table = new_table("task", "what it does", "columns", "options")
    for name, task in TASKS.items():
        columns = ", ".join([*task.columns, *(f"[{column}]" for column in task.optional_columns)])
        options = ", ".join(option for option in task.Options.model_fields if option not in TaskOptions.model_fields)
        table.add_row(f"[cyan]{name}[/cyan]", escape(task.summary), escape(columns), escape(options))
    print_table(table, "columns in brackets are optional; hfray explain TASK says what the options mean")


app.command()(cli_submit.submit)
app.command()(cli_submit.jobs)
app.command()(cli_submit.status)
app.command()(cli_submit.logs)
app.command()(cli_submit.stop)
app.command()(cli_serving.serve)
app.command()(cli_serving.deploy)
app.command()(cli_models.export)
app.command()(cli_models.push)
app.add_typer(cli_models.cache)
app.add_typer(cli_keys.keys)
app.add_typer(cli_render.render)


def _print_error(error: Exception, *, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
        return
    console = Console(stderr=True, highlight=False)
    for line in str(error).splitlines() or [type(error).__name__]:
        console.print(f"[red]{escape(line)}[/red]", soft_wrap=True)
    for note in getattr(error, "__notes__", ()):
        console.print(f"[dim]{escape(note)}[/dim]", soft_wrap=True)


def main() -> None:
    """The entry point: an error becomes one message and the exit code of its class; a traceback only with --debug."""
    debug = "--debug" in sys.argv
    try:
        app()
    except HfrayError as error:
        _print_error(error, debug=debug)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        bug = HfrayError(f"a mistake in hfray itself: {type(error).__name__}: {error}")
        bug.add_note("run it again with --debug to see where, and please report it")
        _print_error(error if debug else bug, debug=debug)
        sys.exit(HfrayError.exit_code)
    finally:
        gc.freeze()  # on its way out Python looks through all objects, which are many with torch and Ray: a second


if __name__ == "__main__":
    main()
