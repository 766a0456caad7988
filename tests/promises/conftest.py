"""One nursery and one cluster of two CPUs for all promises; a folder, a model and a clean set of faults for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models.support import save_model
from tests.promises.disk import mounted
from tests.promises.rig import Helper, Nodes, Rig, environment


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def nursery(faults: Path) -> Iterator[Helper]:
    helper = Helper("tests.promises.nursery", env=environment(faults))
    yield helper
    helper.close()


@pytest.fixture(scope="session")
def nodes(faults: Path) -> Iterator[Nodes]:
    cluster = Nodes(2, environment(faults))
    yield cluster
    cluster.close()


@pytest.fixture
def rig(tmp_path: Path, nursery: Helper, nodes: Nodes, faults: Path, model: Path) -> Iterator[Rig]:
    each = Rig(tmp_path, nursery, nodes, faults, model)
    yield each
    each.close()


@pytest.fixture
def disk() -> Iterator[Path]:
    with mounted() as folder:
        yield folder
