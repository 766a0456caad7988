from __future__ import annotations

from typing import Any

import pytest

from hfray.errors import DataError, EngineError, SpecError
from hfray.training.collective import gather_json, together
from tests.training.process_groups import run_group


def test_alone_one_has_ones_own():
    assert gather_json({"a": 1}) == [{"a": 1}]


def test_what_a_block_raises_alone_says_who_must_act():
    with pytest.raises(SpecError, match="of the author"), together("step"):
        raise SpecError("of the author")
    with pytest.raises(DataError, match="step: No space left; free space"), together("step"):
        raise OSError(28, "No space left")
    with pytest.raises(EngineError, match="step: KeyError: 'x'"), together("step"):
        raise KeyError("x")


def fail_in_turn(rank: int, world_size: int, argument: Any) -> list[Any]:
    found: list[Any] = [gather_json("ä" * rank)]
    for number, error in enumerate((SpecError("s"), OSError(28, "full"), ValueError("v"))):
        try:
            with together("step"):
                if rank == number:
                    raise error
            found.append("nothing")
        except (SpecError, DataError, EngineError) as caught:
            found.append([type(caught).__name__, str(caught)])
    with together("step"):
        found.append("fine")
    return found


@pytest.mark.slow
def test_a_failure_of_one_is_that_of_all(tmp_path):
    expected = [
        ["", "ä", "ää"],
        ["SpecError", "s"],
        ["DataError", "step: full; free space, or mend the disk"],
        ["EngineError", "step: ValueError: v"],
        "fine",
    ]
    assert run_group(fail_in_turn, 3, None, tmp_path / "group") == [expected] * 3
