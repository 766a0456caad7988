from __future__ import annotations

import pytest

from hfray.errors import DataError
from hfray.tasks.generation import exact_match, first_texts, text_references


def test_references_and_exact_match() -> None:
    assert first_texts(["a", ["b", "c"]]) == ["a", "b"]
    assert text_references(["a", ["b", "c"]]) == [["a"], ["b", "c"]]
    for wrong in (None, 3, [], [1]):
        with pytest.raises(DataError, match="reference 1 is"):
            text_references(["a", wrong])
    assert exact_match([" a ", "b", ["c", "x"]], ["a", "x", ["y", "c\n"]]) == pytest.approx(2 / 3)
