"""What each package offers. A package offers its modules and nothing else, unless the table here says so."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import hfray
from hfray.tasks import TASKS
from hfray.tasks.features import MODES

MODULES = tuple(sorted(module.name for module in pkgutil.walk_packages(hfray.__path__, "hfray.")))
PACKAGES = ("hfray", *(name for name in MODULES if hasattr(importlib.import_module(name), "__path__")))
OFFERED = {
    "hfray.tasks": {"TASKS", "Task", *(task.__name__ for task in TASKS.values())},
    "hfray.tasks.features": {"MODES", "Features", *(mode.__name__ for mode in MODES.values())},
}


def tree_of(module: str) -> ast.Module:
    file = importlib.import_module(module).__file__
    assert file is not None
    return ast.parse(Path(file).read_text("utf-8"))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_offers_only_what_is_agreed(package: str) -> None:
    names = {
        name
        for name, value in vars(importlib.import_module(package)).items()
        if not name.startswith("_") and name != "annotations" and not isinstance(value, ModuleType)
    }
    assert names == OFFERED.get(package, set())


def test_the_version_is_public() -> None:
    assert hfray.__version__.count(".") == 2


@pytest.mark.parametrize("module", MODULES)
def test_no_module_takes_what_another_keeps_private(module: str) -> None:
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hfray"):
            private = [alias.name for alias in node.names if alias.name.startswith("_")]
            assert not private, f"{module} imports {private} from {node.module}"


@pytest.mark.parametrize("module", [name for name in MODULES if name not in PACKAGES])
def test_a_module_says_what_it_knows(module: str) -> None:
    assert ast.get_docstring(tree_of(module))
