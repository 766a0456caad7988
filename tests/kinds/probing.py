"""A probe of storage on a Ray of which one node has left since it was listed: run by test_cluster.py."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from hfray.data.storage import Storage
from hfray.errors import DataError
from hfray.kinds.cluster import cluster


def main() -> None:
    found = {}
    with tempfile.TemporaryDirectory() as folder, cluster() as each:
        each.connect()
        nodes = each._nodes() | {"ab" * 28: "10.9.9.9"}
        each._nodes = lambda: nodes  # type: ignore[method-assign]
        output = Storage(folder)
        output.make_dirs("_work")
        each.probe([folder], output)
        found["left"] = [path.name for path in Path(folder, "_work").iterdir()]
        try:
            each.probe([f"{folder}/nowhere"], output)
        except DataError as error:
            found["problem"] = str(error)
    print(json.dumps(found))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
