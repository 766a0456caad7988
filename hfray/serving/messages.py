"""The plain data between a gateway and the replicas of a model. Knows rows and results; not protocols, not HTTP,
not Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypedDict

from hfray.errors import RowError
from hfray.spec.endpoint import LimitsSpec
from hfray.types import Result, Row

Use = Literal["default", "chat"]
"""Which of a replica's predictors: the endpoint's task, or a language model's chats."""


class Marks(TypedDict):
    """The fields of an Ask that say whose it is."""

    request_id: str
    trace_id: str
    salt: str


@dataclass(frozen=True, slots=True)
class Ask:
    """One request."""

    rows: tuple[Row, ...]
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Options of the task that the request sets over the endpoint's own."""
    use: Use = "default"
    request_id: str = ""
    trace_id: str = ""
    """Of the systems around, where the client said one (W3C Trace Context)."""
    salt: str = ""
    """Keeps what one key's requests left in a cache from other keys' requests."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one request."""

    results: tuple[Result | RowError, ...]
    """One per row, in order."""
    num_tokens: int = 0
    """Of the model's inputs."""
    num_new_tokens: int = 0
    """Generated."""
    compute_s: float = 0.0
    """From the replica's taking the request to its answer."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one text of a stream has more than before."""

    index: int
    """Which text."""
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[tuple[str, str], ...] = ()
    """(name, arguments as JSON) of calls that are complete."""
    logprobs: tuple[Mapping[str, Any], ...] = ()
    """As in detailed results, of the tokens since the last piece."""
    num_new_tokens: int = 0
    """Tokens since the last piece."""
    token_ids: tuple[int, ...] = ()
    finish: str | None = None
    """Why the text ends with this piece: stop, length or tool_calls."""
    num_tokens: int = 0
    """Of the prompt."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a gateway must know of a model to speak for it."""

    name: str
    """The application's: what requests call the model."""
    task: str
    options: Mapping[str, Any]
    """The endpoint's own task options."""
    adapters: tuple[str, ...] = ()
    has_chat: bool = False
    streams: bool = False
    """Whether its texts come token by token."""
    labels: tuple[str, ...] = ()
    max_length: int | None = None
    limits: LimitsSpec = field(default_factory=LimitsSpec)
    min_replicas: int = 1
    created: int = 0
    """Seconds since 1970, when it was deployed."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"limits": self.limits.model_dump()}

    @classmethod
    def from_json(cls, card: Mapping[str, Any]) -> Card:
        """Raises KeyError, TypeError or ValueError for what `to_json` did not make."""
        lists = {key: tuple(card[key]) for key in ("adapters", "labels") if key in card}
        return cls(**{**card, **lists, "limits": LimitsSpec.model_validate(card["limits"])})
