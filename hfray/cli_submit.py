"""The commands for jobs on a cluster: submit, jobs, status, logs, stop. Knows arguments and what is printed; what they
do is `submit/`'s."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from hfray.cli_options import Address, AllowOpen, AsJson, Debug, JobFile, Overrides, load_job_file
from hfray.errors import INTERRUPTED
from hfray.tables import new_table, print_table

if TYPE_CHECKING:
    from hfray.submit.attempts import Attempt
    from hfray.submit.submission import ClusterJobs

FAILED = 1
"""Where the cluster knows no exit code: the head lost the job."""
Id = Annotated[str, typer.Argument(help="The id, its beginning, or the job's name.", metavar="ID", show_default=False)]


def submit(
    job: JobFile,
    overrides: Overrides = None,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show what it prints until it ends.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Throw the output away and start over.")] = False,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Score the failed rows again.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also when the last submission succeeded.")] = False,
    pip: Annotated[
        list[str] | None,
        typer.Option("--pip", metavar="PACKAGE", help="A package that the job's processes need. May be repeated."),
    ] = None,
    variables: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="NAME", help="A variable that it gets from here, no secret. May be repeated."),
    ] = None,
    allow_open: AllowOpen = False,
    debug: Debug = False,
) -> None:
    """Run a job on a cluster elsewhere, through Ray's Jobs API.

    Submitting a job that runs already finds it, one that is done says so, and one that failed or was stopped goes on.
    """
    spec = load_job_file(job, overrides or ())
    from hfray.submit.resolve import resolved
    from hfray.submit.runtime import runtime_env
    from hfray.submit.submission import Request

    flags = [flag for flag, given in (("--restart", restart), ("--retry-errors", retry_errors)) if given]
    make_env = partial(runtime_env, pip=pip or (), variables=variables or ())
    make_env(Path())  # what is wrong with it is said before the cluster is asked
    request = Request(resolved(spec), tuple(flags), again=again or bool(flags), make_env=make_env)
    cluster = _cluster(address, allow_open)
    cluster.check_version()
    done = cluster.found(request)
    if done is None:
        cluster.probe(request)
        done = cluster.submit(request)
    attempt, say = done.attempt, _teller()
    if done.new:
        say(f"[green]submitted[/green]  {attempt.id}  [dim]{spec.name} to {cluster.where}[/dim]")
    elif attempt.ongoing:
        say(f"runs already  {attempt.id}  [dim]{spec.name} since {_when(attempt.started_at)}[/dim]")
        if not done.same:
            say("[yellow]with other settings than these; to change them, hfray stop and submit again[/yellow]")
    else:
        say(f"[green]done already[/green]  {attempt.id}  [dim]{spec.name} at {_when(attempt.ended_at)}[/dim]")
        say(f"[dim]output {attempt.about.get('output', '')}; --again submits it once more[/dim]")
        return
    if follow:
        raise typer.Exit(_follow(cluster, attempt))
    say(f"[dim]hfray logs {attempt.id} --follow shows it, hfray stop {attempt.id} ends it[/dim]")


def jobs(address: Address = None, as_json: AsJson = False, allow_open: AllowOpen = False, debug: Debug = False) -> None:
    """The jobs that hfray submitted to a cluster, the latest first."""
    attempts = _cluster(address, allow_open).attempts()[::-1]
    if as_json:
        print(json.dumps([_plain(attempt) for attempt in attempts], indent=2))
        return
    table = new_table("id", "job", "kind", "status", "started", "took")
    for attempt in attempts:
        table.add_row(
            f"[cyan]{attempt.id}[/cyan]", escape(attempt.name), attempt.about.get("kind", ""), _state(attempt),
            _when(attempt.started_at), _took(attempt),
        )  # fmt: skip
    print_table(table, "" if attempts else "none so far; hfray submit JOB.yaml makes one")


def status(
    id: Id, address: Address = None, as_json: AsJson = False, allow_open: AllowOpen = False, debug: Debug = False
) -> None:
    """How a submitted job is. Ends with 0 while it is well: it waits, runs or has succeeded."""
    attempt = _find(_cluster(address, allow_open), id)
    if as_json:
        print(json.dumps(_plain(attempt), indent=2))
    else:
        say = _teller()
        took = f"  [dim]{_took(attempt)}[/dim]" if attempt.started_at else ""
        say(f"{attempt.id}  [bold]{escape(attempt.name)}[/bold]  {_state(attempt)}{took}")
        say(f"[dim]started {_when(attempt.started_at)}, output {escape(attempt.about.get('output', ''))}[/dim]")
        if attempt.message and attempt.status == "FAILED":
            say(f"[dim]{escape(attempt.message.strip().splitlines()[0])}[/dim]")
    raise typer.Exit(0 if attempt.ongoing else _exit_code(attempt))


def logs(
    id: Id,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    address: Address = None,
    allow_open: AllowOpen = False,
    debug: Debug = False,
) -> None:
    """What a submitted job has printed."""
    cluster = _cluster(address, allow_open)
    attempt = _find(cluster, id)
    if follow:
        raise typer.Exit(_follow(cluster, attempt))
    print(cluster.logs(attempt), end="")


def stop(id: Id, address: Address = None, allow_open: AllowOpen = False, debug: Debug = False) -> None:
    """End a submitted job; what it has finished is kept, and submitting it again goes on from there."""
    cluster = _cluster(address, allow_open)
    attempt = _find(cluster, id)
    _stop(cluster, attempt)


def _stop(cluster: ClusterJobs, attempt: Attempt) -> None:
    say = _teller()
    if not attempt.ongoing:
        say(f"{attempt.id} has ended before: {_state(attempt)}")
        return
    ended = cluster.stop(attempt)
    say(f"{ended.id}  {_state(ended)}  [dim]what is finished is kept; submitting it again goes on from there[/dim]")


def _follow(cluster: ClusterJobs, attempt: Attempt) -> int:
    from hfray.submit.follow import ask_what_next
    from hfray.submit.follow import follow as follow_job

    console = Console(highlight=False)
    while True:
        try:
            ended = follow_job(cluster, attempt, console)
        except KeyboardInterrupt:
            what = ask_what_next(console)
            if what == "on":
                continue
            if what == "stop":
                _stop(cluster, attempt)
            else:
                _teller()(f"[dim]{attempt.id} runs on; hfray logs {attempt.id} --follow comes back to it[/dim]")
            return INTERRUPTED
        if ended.status != "SUCCEEDED":
            say = _teller()
            if ended.exit_code is None:  # it did not come to printing anything, or was cut off
                say(f"[red]{escape(ended.message.strip())}[/red]")
            say(f"{ended.id}  {_state(ended)}  [dim]submitting the job again goes on from there[/dim]")
        return _exit_code(ended)


def _cluster(address: str | None, allow_open: bool) -> ClusterJobs:
    from hfray.kinds.dashboard import dashboard_address, jobs_client
    from hfray.submit.submission import ClusterJobs

    where = dashboard_address(address)
    return ClusterJobs(jobs_client(where, allow_open=allow_open), where)


def _find(cluster: ClusterJobs, wanted: str) -> Attempt:
    from hfray.submit.attempts import find

    return find(cluster.attempts(), wanted)


def _exit_code(attempt: Attempt) -> int:
    """That of `hfray run` on the cluster."""
    if attempt.status == "SUCCEEDED":
        return 0
    if attempt.status == "STOPPED":
        return INTERRUPTED
    return attempt.exit_code or FAILED


_STATES = {
    "PENDING": "[yellow]waits[/yellow]",
    "RUNNING": "[cyan]runs[/cyan]",
    "SUCCEEDED": "[green]done[/green]",
    "FAILED": "[red]failed[/red]",
    "STOPPED": "stopped",
}


def _state(attempt: Attempt) -> str:
    code = f" [dim]({attempt.exit_code})[/dim]" if attempt.status == "FAILED" and attempt.exit_code else ""
    return _STATES.get(attempt.status, attempt.status) + code


def _took(attempt: Attempt) -> str:
    import time

    from hfray.kinds.units import duration

    if attempt.started_at is None:
        return ""
    return duration(max(0.0, (attempt.ended_at or time.time()) - attempt.started_at))


def _when(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") if seconds else "-"


def _plain(attempt: Attempt) -> dict[str, Any]:
    return {key: value for key, value in asdict(attempt).items() if key != "about"} | attempt.about


def _teller() -> Callable[[str], None]:
    console = Console(highlight=False)
    return lambda text: console.print(text, soft_wrap=True)
