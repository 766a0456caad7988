"""The pieces of a report's page. Knows HTML; nothing of jobs. What comes from outside is escaped by the caller, but for
cells and facts, which are escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def tile(label: str, value: str, note: str, css: str = "") -> str:
    return (
        f'<div class="tile {css}"><span>{escape(label)}</span><b>{escape(value)}</b><small>{escape(note)}</small></div>'
    )


def card(title: str, body: str, note: str = "") -> str:
    small = f"<small>{escape(note)}</small>" if note else ""
    return f'<div class="card"><h2>{escape(title)}{small}</h2>{body}</div>'


def facts(facts: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts if value)
    return f'<table class="facts"><tbody>{rows}</tbody></table>'


def table(names: Sequence[str], rows: Iterable[Sequence[str]], num: Sequence[int] = (), css: str = "scroll") -> str:
    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=num' if index in num else ''}>{escape(value)}</{tag}>"
            for index, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="{css}"><table><thead><tr>{cells("th", names)}</tr></thead><tbody>{body}</tbody></table></div>'
