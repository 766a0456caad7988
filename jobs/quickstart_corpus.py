"""Collects every docstring of the standard library of the Python that runs this into a JSON Lines file.

    python jobs/quickstart_corpus.py out/quickstart-corpus.jsonl

Python sources are parsed, never imported: importing a module can run anything. Only what is compiled has no source to
parse, so the interpreter's own built-in and extension modules are imported. Each line: {"name", "text"}, the text led
by its name, which says more than many a docstring.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import json
import platform
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import ModuleType

MIN_CHARS = 20  # a shorter docstring says nothing that its name does not
SKIPPED_FOLDERS = {"test", "tests", "site-packages", "dist-packages"}
TEST_MODULES = ("_test", "_xx", "xx", "_ctypes_test")

Docstrings = Iterator[tuple[str, str]]
"""(dotted name, docstring)"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Collects the docstrings of the standard library.")
    parser.add_argument("target", type=Path, help="the JSON Lines file to write")
    target: Path = parser.parse_args().target
    target.parent.mkdir(parents=True, exist_ok=True)
    rows = ({"name": name, "text": f"{name}: {text}"} for name, text in corpus())
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    target.write_text("".join(lines), encoding="utf-8")
    print(f"{len(lines):,} docstrings of Python {platform.python_version()} in {target}")


def corpus() -> Docstrings:
    """All docstrings worth a row, each text once, in an order that is fixed for one interpreter."""
    seen: set[str] = set()
    for name, text in chain(source_docstrings(Path(sysconfig.get_path("stdlib"))), compiled_docstrings()):
        is_text = all(char.isprintable() or char.isspace() for char in text)
        if len(text) >= MIN_CHARS and is_text and text not in seen:
            seen.add(text)
            yield name, text


def source_docstrings(root: Path) -> Docstrings:
    """Those of every module, class and function in the Python files below a folder."""
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if SKIPPED_FOLDERS & set(parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # a few files are broken on purpose
        yield from walk_tree(tree, ".".join(part for part in parts if part != "__init__"))


def walk_tree(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> Docstrings:
    text = ast.get_docstring(node)
    if text:
        yield name, text
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from walk_tree(child, f"{name}.{child.name}")


def compiled_docstrings() -> Docstrings:
    """Those of every module, class, function and method that is written in C."""
    for name in compiled_modules():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # some are deprecated and say so when they are imported
                module = importlib.import_module(name)
        except ImportError:
            continue  # it needs a system library that this machine lacks
        yield from walk_module(module)


def compiled_modules() -> list[str]:
    """Names of the built-in modules and of those in lib-dynload, without the ones made for Python's own tests."""
    folder = Path(sysconfig.get_path("stdlib"), "lib-dynload")
    extensions = {path.name.partition(".")[0] for path in folder.iterdir()} if folder.is_dir() else set()
    return [name for name in sorted({*sys.builtin_module_names, *extensions}) if not name.startswith(TEST_MODULES)]


def walk_module(module: ModuleType) -> Docstrings:
    yield from docstring_of(module, module.__name__)
    for key, value in sorted(vars(module).items()):
        if isinstance(value, type):
            name = f"{value.__module__}.{value.__qualname__}"
            yield from docstring_of(value, name)
            for member_key, member in sorted(vars(value).items()):
                yield from docstring_of(member, f"{name}.{member_key}")
        elif callable(value):
            yield from docstring_of(value, f"{module.__name__}.{key}")


def docstring_of(value: object, name: str) -> Docstrings:
    text = getattr(value, "__doc__", None)
    if isinstance(text, str) and text:
        yield name.removeprefix("builtins."), inspect.cleandoc(text)


if __name__ == "__main__":
    main()
