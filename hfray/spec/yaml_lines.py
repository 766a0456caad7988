"""YAML with line numbers, without YAML 1.1's surprises. Knows text and plain values; not what they mean.

Scalars are read as YAML 1.2's core schema has them (https://yaml.org/spec/1.2.2/#103-core-schema): only `true` and
`false` are booleans (`no` is Norwegian), `1e-3` is a number, `12:30`, `2026-01-31` and `007` are text. A key given
twice is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from hfray.errors import SpecError
from hfray.spec.shape import Keys, dotted

MAX_NODES = 100_000
"""Aliases may make a small file large; no job needs more."""

_BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float"))
_DROPPED = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")
_SCALARS = {
    _BOOL: (re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    _INT: (re.compile(r"^(?:[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+)$"), "-+0123456789"),
    _FLOAT: (
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9][0-9_]*\.[0-9_]*)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        "-+0123456789.",
    ),
}


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: plain values, and the line (from 1) on which each key or list entry begins."""

    value: Any
    lines: Mapping[Keys, int] = field(default_factory=dict)

    def nearest(self, path: Keys) -> Keys:
        """The longest beginning of a path of keys that the file has."""
        while path and path not in self.lines:
            path = path[:-1]
        return path

    def line_of(self, path: Keys) -> int:
        """The line of a key, or of the nearest key around it."""
        return self.lines.get(self.nearest(path), 1)


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's scalars."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (*_SCALARS, *_DROPPED)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes what either YAML 1.1 or `_Loader` would take for something else than text."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    """PyYAML's other styles fold the rarer line breaks into spaces."""
    style = '"' if set(text) & set("\r\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


class _BlockDumper(_Dumper):
    """Texts of several lines as blocks, and what is there twice written twice: for people who read it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_block(dumper: _BlockDumper, text: str) -> yaml.Node:
    if "\n" in text and not set(text) & set("\r\x85\u2028\u2029"):
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, "|")
    return _represent_text(dumper, text)


_Dumper.add_representer(str, _represent_text)
_BlockDumper.add_representer(str, _represent_block)
for _tag, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(_tag, _pattern, list(_first))
    _Dumper.add_implicit_resolver(_tag, _pattern, list(_first))
    _BlockDumper.add_implicit_resolver(_tag, _pattern, list(_first))


def parse(text: str, name: str) -> Document:
    """Raises SpecError, with file and line, for text that is not YAML or gives a key twice."""
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return Document(None)
        lines: dict[Keys, int] = {}
        _walk(node, (), lines, name)
        return Document(loader.construct_document(node), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark is not None else name
        problem = error.problem or "cannot be parsed"
        if problem.startswith(
            "but "
        ):  # such as "expected a single document in the stream" "but found another document"
            problem = f"{error.context} {problem}"
        raise SpecError(f"{where}: not YAML: {problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SpecError(f"{name}:{line}: not YAML: the character U+{int(error.character):04X} is not allowed") from None
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(f"{name}: not YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise SpecError(f"{name}: not a job: nested too deeply") from None
    finally:
        if loader is not None:
            loader.dispose()


def parse_value(text: str) -> Any:
    """One value, as after `--set key=`. Text that is no YAML stands for itself."""
    try:
        return parse(text, "").value
    except SpecError:
        return text


def dump(value: Any) -> str:
    """Plain values as YAML that `parse` reads back as the same values."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def dump_blocks(value: Any) -> str:
    """The same, with texts of several lines as blocks and no line folded: for a text that holds another YAML file."""
    return yaml.dump(value, Dumper=_BlockDumper, sort_keys=False, allow_unicode=True, width=10**6)


def _walk(node: yaml.Node, path: Keys, lines: dict[Keys, int], name: str) -> None:
    """Notes the line of every key and list entry; merged keys (`<<`) keep the line of the mapping around them."""
    lines.setdefault(path, node.start_mark.line + 1)
    if len(lines) > MAX_NODES:
        raise SpecError(f"{name}: not a job: more than {MAX_NODES:,} keys and entries (aliases counted)")
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            label = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            line = key.start_mark.line + 1
            if label in seen:
                raise SpecError(f"{name}:{line}: {dotted((*path, label))}: given twice, first on line {seen[label]}")
            seen[label] = line
            lines[(*path, label)] = line
            _walk(value, (*path, label), lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, entry in enumerate(node.value):
            _walk(entry, (*path, index), lines, name)
