"""The commands for API keys: add, list, revoke. Knows arguments and what is printed; not how the file is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from hfray.cli_options import AsJson, Debug
from hfray.errors import SpecError
from hfray.tables import new_table, print_table

if TYPE_CHECKING:
    from hfray.serving.keys_file import Key

keys = typer.Typer(
    name="keys",
    help="Who may use the endpoints: a file of hashed keys, read again within a second of a change.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
File = Annotated[Path, typer.Option("--file", help="The keys file, which the gateway names too.", show_default=False)]
Id = Annotated[str, typer.Option("--id", help="Whose key it is; stands in the access log.", show_default=False)]
UNLIMITED = "-"


@keys.command()
def add(
    file: File,
    id: Id,
    models: Annotated[str, typer.Option("--models", help="Names of endpoints, with commas between; * for all.")] = "*",
    requests_per_minute: Annotated[int | None, typer.Option("--requests-per-minute", help="Default: no limit.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option("--tokens-per-minute", help="Default: no limit.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option("--tokens-per-day", help="Default: no limit.")] = None,
    debug: Debug = False,
) -> None:
    """Make a key. It is printed once, alone on the standard output; the file gets its SHA-256."""
    from pydantic import ValidationError

    from hfray.serving.keys import new_key
    from hfray.serving.keys_file import Key, one_writer, read_keys, write_keys

    text, sha256 = new_key()
    try:
        key = Key(
            id=id,
            sha256=sha256,
            models=tuple(name.strip() for name in models.split(",") if name.strip()),
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            tokens_per_day=tokens_per_day,
        )
    except ValidationError as error:
        raise SpecError("\n".join(_problem(each) for each in error.errors(include_url=False))) from None
    if not key.models:
        raise SpecError("--models: names no model; leave it out to allow all")
    with one_writer(file):
        known = read_keys(file)[0] if file.exists() else ()
        if any(each.id == key.id for each in known):
            raise SpecError(f"--id {key.id}: {file} has it already; revoked ids are kept too, so take a new one")
        write_keys(file, (*known, key))
    print(text, flush=True)
    note = f"{key.id} was added to {file}; the key is shown this once"
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[dim]{escape(note)}[/dim]")


def _problem(error: Any) -> str:
    """Without the value: somebody may have given a key for an id."""
    place = str(error["loc"][0]).replace("_", "-")
    return f"--{place}: {str(error['msg']).removeprefix('Value error, ').removeprefix('Input should be ')}"


@keys.command("list")
def list_keys(file: File, as_json: AsJson = False, debug: Debug = False) -> None:
    """The keys of a file: whose, for what and how much; no key and no hash."""
    from hfray.serving.keys_file import read_keys

    known, _ = read_keys(file)
    if as_json:
        print(json.dumps([key.model_dump(mode="json", exclude={"sha256"}) for key in known], indent=2))
        return
    table = new_table("id", "models", "requests/min", "tokens/min", "tokens/day", "state")
    for key in known:
        table.add_row(*_shown(key))
    print_table(table)


def _shown(key: Key) -> tuple[str, ...]:
    limits = (key.requests_per_minute, key.tokens_per_minute, key.tokens_per_day)
    return (
        f"[cyan]{escape(key.id)}[/cyan]",
        escape(", ".join(key.models)),
        *(UNLIMITED if limit is None else f"{limit:,}" for limit in limits),
        "[red]revoked[/red]" if key.disabled else "active",
    )


@keys.command()
def revoke(file: File, id: Id, debug: Debug = False) -> None:
    """Lock a key out, within about a second and for good. Its entry stays, so that logs can be read later."""
    from hfray.serving.keys_file import one_writer, read_keys, write_keys
    from hfray.spec.problems import close_or_known

    with one_writer(file):
        known, _ = read_keys(file)
        if id not in {key.id for key in known}:
            raise SpecError(f"--id: {file} has no such key{close_or_known(id, [key.id for key in known])}")
        write_keys(file, [key.model_copy(update={"disabled": True}) if key.id == id else key for key in known])
    Console(highlight=False, soft_wrap=True).print(f"[green]revoked[/green]  {escape(id)}")
