"""What is wrong with a request, or with its answering. Knows statuses of HTTP; not protocols' bodies, not rows."""

from __future__ import annotations

from hfray.errors import HfrayError, RowError
from hfray.tasks.openai.responses import FAULTS

_STATUS = {"Cancelled": 503, "UnknownAdapter": 404}
_FOREIGN = {
    "ModelFailure": "the model failed on this input",
    "TokenizerFailure": "the tokenizer failed on this input",
}
"""Of errors whose message is a library's: it may quote the input or name a path."""


class RequestError(HfrayError):
    """Ends a request with a status and a message that its sender may read.

    type: a short CamelCase word, such as of the RowError behind it. param: the field at fault. retry_after_s: when the
    same request may be better off.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str = "InvalidRequest",
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.param = param
        self.retry_after_s = retry_after_s

    @property
    def message(self) -> str:
        return str(self.args[0])


def as_request_error(error: RowError) -> RequestError:
    """A row that could not be answered, as the end of its request."""
    message = _FOREIGN.get(error.type, error.message)
    status = _STATUS.get(error.type, 500 if error.type in FAULTS else 422)
    return RequestError(message, status=status, type=error.type)
