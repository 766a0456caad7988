"""The error tree: the class says who must act. Knows no other module.

    HfrayError
    ├── SpecError           the author of the job file                 exit code 2
    ├── ErrorRateExceeded   the owner of the data: too many bad rows   exit code 3
    ├── DataError           the owner of the data: files and storage   exit code 4
    ├── EngineError         the operator: devices, memory, workers     exit code 5
    ├── LeaseHeld           nobody: another run works on the output    exit code 6
    └── RowError            nobody: recorded beside its row, the job goes on
        └── ItemError       one model input failed inside the engine

Messages say where, what and what to do. Every class takes one positional argument and keeps details in
keywords, because an exception with more required arguments cannot be unpickled on its way back from a worker.
"""

from __future__ import annotations

INTERRUPTED = 130
"""What the command line ends with after Ctrl-C: 128 + SIGINT, as shells report it."""


class HfrayError(Exception):
    """The root; `exit_code` is what the command line ends with."""

    exit_code = 1


class SpecError(HfrayError):
    """The job file (or a command's argument) is wrong; nothing was started."""

    exit_code = 2


class ErrorRateExceeded(HfrayError):
    """More rows failed than `max_error_rate` allows; the parts are kept, `_SUCCESS` is not written."""

    exit_code = 3


class DataError(HfrayError):
    """A file, a store or a disk does not do what it must."""

    exit_code = 4


class EngineError(HfrayError):
    """A model, a device or a worker failed in a way that no row is to blame for."""

    exit_code = 5


class LeaseHeld(HfrayError):
    """Another live run holds the output folder."""

    exit_code = 6


class RowError(HfrayError):
    """One row could not be answered. A value as much as an exception: it lands in the column `error`.

    `type` is a short CamelCase word that can be grouped by ("NullText", "BrokenImage", "OutOfMemory").
    """

    def __init__(self, message: str, *, type: str = "RowError") -> None:
        super().__init__(message)
        self.type = type

    @property
    def message(self) -> str:
        return str(self.args[0])

    def as_record(self) -> dict[str, str]:
        """The value of the `error` column: `{"type", "message"}`."""
        return {"type": self.type, "message": self.message}


class ItemError(RowError):
    """One engine item failed alone, after its batch was split down to it."""
