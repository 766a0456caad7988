"""The names of an output's parts: one numbering over all splits, one file each. Knows names; opens no file."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

PartFormat = Literal["parquet", "jsonl", "arrow"]
DATASET_FILES = ("dataset_dict.json", "state.json", "dataset_info.json")
"""What `datasets.load_from_disk` wants beside the parts."""

_FLAT = re.compile(r"part-(\d{8,})\.(parquet|jsonl|arrow)")
_ARROW = re.compile(r"data-(\d{5,})-of-(\d{5,})\.arrow")
SPLIT = r"[A-Za-z0-9][\w.-]*"
"""What a split may be called: a plain folder name."""
_OURS = re.compile(rf"(?:{SPLIT}/)?(?:{_FLAT.pattern}|{_ARROW.pattern}|{'|'.join(map(re.escape, DATASET_FILES))})")


@dataclass(frozen=True, slots=True)
class Layout:
    """Parts in a folder, or in one folder for each split.

    splits: (name, number of parts) in the order of the numbering; () for parts without splits.
    """

    folder: str
    format: PartFormat
    splits: tuple[tuple[str, int], ...] = ()

    @property
    def folders(self) -> tuple[str, ...]:
        """Every folder that holds parts, from the output's root."""
        return (self.folder, *(f"{self.folder}/{name}" for name, _ in self.splits))

    def name(self, part: int) -> str:
        """Of a part, below `folder`: `part-00000007.parquet`, `train/part-00000007.parquet`; eight digits hold a
        hundred million. Parts of a saved dataset are `train/data-00007-of-00012.arrow`, as `datasets` names them."""
        if not self.splits:
            return f"part-{part:08d}.{self.format}"
        split = self.split_of(part)
        name, count = self.splits[split]
        number = part - self.first_part(split)
        if self.format == "arrow":
            return f"{name}/data-{number:05d}-of-{count:05d}.arrow"
        return f"{name}/part-{number:08d}.{self.format}"

    def path(self, part: int) -> str:
        """Of a part, from the output's root."""
        return f"{self.folder}/{self.name(part)}"

    def part(self, name: str) -> int | None:
        """The number of the part with this name below `folder`; None for any other name."""
        found = _FLAT.fullmatch(name.rpartition("/")[2]) or _ARROW.fullmatch(name.rpartition("/")[2])
        if found is None:
            return None
        number = int(found[1])
        if self.splits:
            names = [split for split, _ in self.splits]
            split = name.rpartition("/")[0]
            if split not in names:
                return None
            number += self.first_part(names.index(split))
        return number if self._holds(number) and self.name(number) == name else None

    def first_part(self, split: int) -> int:
        """The number of a split's first part."""
        return sum(count for _, count in self.splits[:split])

    def split_of(self, part: int) -> int:
        """The index of the split that a part belongs to."""
        ends = list(accumulate(count for _, count in self.splits))
        return bisect_right(ends, part)

    def _holds(self, part: int) -> bool:
        return not self.splits or part < sum(count for _, count in self.splits)


def is_ours(name: str) -> bool:
    """Whether hfray could have written a file of this name below `data`, whatever the splits are called."""
    return _OURS.fullmatch(name) is not None
