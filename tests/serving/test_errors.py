"""What a row's error becomes for the one who asked."""

from __future__ import annotations

import pytest

from hfray.errors import RowError
from hfray.serving.errors import as_request_error
from hfray.tasks.openai.responses import FAULTS


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("NullText", 422),
        ("PromptTooLong", 422),
        ("UnknownAdapter", 404),
        ("Cancelled", 503),
        *((kind, 500) for kind in sorted(FAULTS - {"Cancelled"})),
    ],
)
def test_whose_fault_it_is(kind: str, status: int) -> None:
    assert as_request_error(RowError("why", type=kind)).status == status


def test_what_a_library_raised_is_not_told() -> None:
    raised = "the model failed on this input: RuntimeError: /some/path: 'secret'"
    error = as_request_error(RowError(raised, type="ModelFailure"))
    assert error.message == "the model failed on this input"
    quoted = "the tokenizer failed: cannot encode 'secret'"
    assert as_request_error(RowError(quoted, type="TokenizerFailure")).message == "the tokenizer failed on this input"
    assert as_request_error(RowError("the text is empty", type="EmptyText")).message == "the text is empty"
