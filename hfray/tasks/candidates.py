"""Candidate labels of zero-shot tasks: from the options or the row, checked, as sentences. Knows no model."""

from __future__ import annotations

from typing import Any

from hfray.errors import RowError, SpecError
from hfray.tasks.text import CutText, check_text
from hfray.types import Row


def check_candidates(options: Any) -> None:
    """Checks `candidate_labels` and `hypothesis_template` of a job or request. Raises SpecError."""
    if "{}" not in options.hypothesis_template:
        raise SpecError(
            f"task.hypothesis_template {options.hypothesis_template!r} has no {{}} where the label goes, "
            'as in "This is about {}."'
        )
    try:
        for label in options.candidate_labels:
            check_text(label, "task.candidate_labels", options)
    except RowError as error:
        raise SpecError(error.message) from None
    if len(set(options.candidate_labels)) < len(options.candidate_labels):
        raise SpecError("task.candidate_labels names a label twice")


def candidates_of(row: Row, options: Any) -> tuple[str, ...]:
    """The labels of a row: its own column `candidate_labels` (a list, or text with commas), else those of the options.

    Raises RowError: NoLabels, RepeatedLabel, and those of `check_text`.
    """
    value = row.get("candidate_labels")
    if value is None:
        if not options.candidate_labels:
            raise RowError(
                "no labels to choose from: neither task.candidate_labels nor a column 'candidate_labels'",
                type="NoLabels",
            )
        return tuple(options.candidate_labels)
    if isinstance(value, str):
        value = [label.strip() for label in value.split(",") if label.strip()]
    if not isinstance(value, list | tuple):
        raise RowError(f"candidate_labels is {type(value).__name__}, not a list or text with commas", type="WrongType")
    labels = tuple(check_text(label, "a candidate label", options) for label in value)
    if not labels:
        raise RowError("candidate_labels is empty", type="NoLabels")
    if len(set(labels)) < len(labels):
        raise RowError("candidate_labels names a label twice", type="RepeatedLabel")
    return labels


def hypothesis(template: str, label: str) -> str:
    """The template with the label in the place of every {}; a CutText where the label is one."""
    # Not str.format: a template may come with a request, and format reaches into attributes and widths.
    sentence = template.replace("{}", label)
    return CutText(sentence) if isinstance(label, CutText) else sentence
