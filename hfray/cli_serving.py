"""`hfray serve` and `hfray deploy`. Knows the command line; what they do is `kinds/serve.py`'s."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfray.cli_options import Address, AllowOpen, Debug

ServeFileArgument = Annotated[
    Path, typer.Argument(help="The Ray Serve file.", metavar="CONFIG.yaml", show_default=False)
]


def serve(
    config: ServeFileArgument,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    debug: Debug = False,
) -> None:
    """Run endpoints here, in the foreground, until Ctrl-C: on a local Ray, or the cluster of RAY_ADDRESS."""
    from hfray.spec.serve_file import load_serve_file

    file = load_serve_file(config)
    from hfray.kinds.serve import serve_here

    raise typer.Exit(serve_here(file, quiet=quiet, debug=debug))


def deploy(
    config: ServeFileArgument,
    address: Address = None,
    wait_s: Annotated[
        float, typer.Option("--wait", help="Seconds to wait for all models to answer; 0: do not wait.")
    ] = 600,
    allow_open: AllowOpen = False,
    debug: Debug = False,
) -> None:
    """Publish or update endpoints on a cluster; what the file does not name any more is taken away.

    The same as Ray's own `serve deploy`, after a check of the whole file.
    """
    from hfray.spec.serve_file import load_serve_file

    file = load_serve_file(config)
    from hfray.kinds.serve import deploy_file

    raise typer.Exit(deploy_file(file, address=address, wait_s=wait_s, allow_open=allow_open))
