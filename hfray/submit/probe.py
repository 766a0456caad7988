"""`python -m hfray.submit.probe FILE`, on the cluster: whether all its nodes see the paths of a job that is about to be
submitted. Prints why not as its last line, and ends with 4."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hfray.errors import HfrayError

PROBE_FILE = "probe.json"
MARK = "hfray-probe: "


def command() -> str:
    """What the head runs."""
    return f"exec python -m {__spec__.name} {PROBE_FILE}"


def write_probe(folder: Path, reads: tuple[str, ...], output: str | None) -> None:
    """What to look for: paths to read, and the folder to write to."""
    (folder / PROBE_FILE).write_text(json.dumps({"reads": reads, "output": output}), encoding="utf-8")


def reason_in(logs: str) -> str:
    """Why not, out of what the probe printed."""
    lines = [line for line in logs.splitlines() if line.strip()]
    ours = [line for line in lines if MARK in line]
    return ours[-1].partition(MARK)[2] if ours else lines[-1] if lines else "it printed nothing"


def main() -> int:
    from hfray.data.storage import Storage
    from hfray.kinds.cluster import cluster

    asked = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    output = None if asked["output"] is None else Storage(asked["output"])
    try:
        if output is not None:
            output.make_dirs("_work")  # where a ledger has its own
        with cluster() as here:
            here.connect()
            here.probe_all(asked["reads"], output)
    except HfrayError as error:
        print(f"{MARK}{' '.join(str(error).split())}", flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
