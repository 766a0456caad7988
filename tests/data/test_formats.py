from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from hfray.data.base import FileRef, Format
from hfray.data.formats import FORMATS, index_file
from hfray.data.listing import list_files
from hfray.errors import DataError


def test_every_format_has_its_two_functions() -> None:
    assert set(FORMATS) == set(get_args(Format))
    assert FORMATS["images"].payload == ("image",)


def test_a_file_that_changes_while_it_is_indexed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    (file,) = list_files([str(tmp_path)])
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    with pytest.raises(DataError, match="changed since it was listed"):
        index_file(file, 10, "")
    (tmp_path / "a.txt").unlink()
    with pytest.raises(DataError, match="no such file"):
        index_file(file, 10, "")
    with pytest.raises(ValueError, match="shard_rows"):
        index_file(FileRef("x", 0, "", "text"), 0, "")
