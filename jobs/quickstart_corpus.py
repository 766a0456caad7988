"""Collects every docstring of the standard library of the Python that runs this into a JSON Lines file.

    python jobs/quickstart_corpus.py out/quickstart-corpus.jsonl

Sources are parsed, never imported: importing a module can run anything. Each line: {"name", "text"}.
"""

from __future__ import annotations

import ast
import json
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

MIN_CHARS = 40  # a shorter docstring says nothing that its name does not
SKIPPED = {"test", "tests", "idlelib", "site-packages", "dist-packages", "lib2to3", "turtledemo", "__pycache__"}


def main(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with target.open("w", encoding="utf-8") as file:
        for name, text in docstrings(Path(sysconfig.get_path("stdlib"))):
            file.write(json.dumps({"name": name, "text": text}, ensure_ascii=False) + "\n")
            count += 1
    print(f"{count:,} docstrings of Python {sys.version.split()[0]} in {target}")


def docstrings(root: Path) -> Iterator[tuple[str, str]]:
    """(dotted name, docstring) of every module, class and function below a folder, in a fixed order."""
    seen: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if SKIPPED & set(parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # a few files are broken on purpose
        module = ".".join(part for part in parts if part != "__init__")
        for name, text in walk(tree, module):
            if len(text) >= MIN_CHARS and text.isprintable() | ("\n" in text) and text not in seen and "\0" not in text:
                seen.add(text)
                yield name, text


def walk(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str
) -> Iterator[tuple[str, str]]:
    text = ast.get_docstring(node)
    if text:
        yield name, text
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from walk(child, f"{name}.{child.name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
