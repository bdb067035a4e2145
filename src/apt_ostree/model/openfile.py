"""A file that travels with a request: not its path, but what the client opened."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file or directory that the client opened with its own rights.

    fd: the descriptor, in the process that carries the request out; name: the path, for messages.
    """

    fd: int
    name: str

    def __post_init__(self) -> None:
        if self.fd < 0:
            raise ValueError(f"{self.fd} is not a file descriptor")
