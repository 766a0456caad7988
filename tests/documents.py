"""Reads the project's Markdown for tests: fenced blocks, commands, links, tables, anchors. Knows no hfray."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCUMENTS = tuple(sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]))
JOBS = tuple(sorted(ROOT.glob("jobs/*.yaml")))

_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```\s*$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?)\s*$", re.MULTILINE)
_ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
SHELL_LANGUAGES = ("bash", "sh", "console")


def blocks(document: Path, *languages: str) -> list[str]:
    """The fenced blocks in one of the languages."""
    return [body for _, language, body in _FENCE.findall(document.read_text("utf-8")) if language in languages]


def commands(document: Path) -> Iterator[list[str]]:
    """Every command of the document as words: lines of shell blocks, and inline code; comments and variables set
    before a command are left out."""
    lines = [line for body in blocks(document, *SHELL_LANGUAGES) for line in body.replace("\\\n", " ").splitlines()]
    prose = _FENCE.sub("", document.read_text("utf-8"))
    for line in [*lines, *(" ".join(code.split()) for code in _INLINE.findall(prose))]:
        try:
            words = shlex.split(line.removeprefix("$ "), comments=True)
        except ValueError:
            continue  # inline code that is no command, such as a lone quote
        while words and _ASSIGNMENT.fullmatch(words[0]):
            words = words[1:]
        if words:
            yield words


def links(document: Path) -> list[str]:
    """The targets of all links that stay inside the repository, anchors included."""
    prose = _FENCE.sub("", document.read_text("utf-8"))
    return [target for target in _LINK.findall(prose) if "://" not in target]


def anchors(document: Path) -> set[str]:
    """The anchors that headings make."""
    prose = _FENCE.sub("", document.read_text("utf-8"))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in _HEADING.findall(prose)}


def table(document: Path, first_header: str) -> list[tuple[str, ...]]:
    """The cells of the table whose first column has this header, without the header; back-ticks stripped."""
    rows: list[tuple[str, ...]] = []
    inside = False
    for line in document.read_text("utf-8").splitlines():
        cells = tuple(cell.strip().replace("`", "") for cell in line.strip().strip("|").split("|"))
        if line.startswith("|") and cells[0] == first_header:
            inside = True
        elif inside and not line.startswith("|"):
            break
        elif inside and not set(cells[0]) <= set(":- "):
            rows.append(cells)
    return rows
