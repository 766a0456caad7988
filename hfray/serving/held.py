"""How much of all requests' bodies a server holds at once. Knows numbers of bytes; not HTTP, not whose they are."""

from __future__ import annotations


class HeldBytes:
    """A bound that all requests of one server share: what waits is bounded by number, but large bodies would fill the
    memory long before."""

    def __init__(self, limit: int | None = None) -> None:
        """limit: None for none, where a server further out has one."""
        self.limit = limit
        self.num_bytes = 0

    def take(self, num_bytes: int, own: int) -> bool:
        """Whether a request that holds `own` bytes may hold so many more; one that is alone may always."""
        if self.limit is not None and self.num_bytes + num_bytes > self.limit and self.num_bytes > own:
            return False
        self.num_bytes += num_bytes
        return True

    def give(self, num_bytes: int) -> None:
        """A request that held so many has been answered."""
        self.num_bytes -= num_bytes
