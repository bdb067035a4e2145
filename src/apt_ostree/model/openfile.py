"""A file that is passed with a request as a descriptor, not by its path."""

from __future__ import annotations

from dataclasses import dataclass

#: Descriptors are C's int.
_LARGEST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file or directory that the client opened with its own privileges.

    fd: the descriptor, in the worker.
    name: the path, for messages.
    """

    fd: int
    name: str

    def __post_init__(self) -> None:
        if not 0 <= self.fd <= _LARGEST:
            raise ValueError(f"{self.fd} is not a file descriptor")
