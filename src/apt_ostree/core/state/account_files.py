"""Makes the account files of the machine agree, which ostree merges one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from apt_ostree.model import accounts
from apt_ostree.system import accounts_lock, files, mounts

_ETC = Path("/etc")


def agree() -> bool:
    """Add the lines that shadow and gshadow lack; return whether there were any."""
    with mounts.in_namespace_of(1), accounts_lock.locked(_ETC):
        states = {name: files.read_state(_ETC / name) for name in accounts.FILES}
        texts = {
            name: state.content.decode(errors="surrogateescape")
            for name, state in states.items()
            if state.type == "file"
        }
        added = accounts.lines_without_password(texts)
        new = [
            (_ETC / name, replace(states[name], content=_with_line(texts[name], lines)))
            for name, lines in added.items()
        ]
        files.write_states(new)
        return bool(new)


def _with_line(text: str, lines: str) -> bytes:
    separator = "" if text.endswith("\n") or not text else "\n"
    return f"{text}{separator}{lines}".encode(errors="surrogateescape")
