"""systemd on the running system: units, reload, tmpfiles and sysusers, always in PID 1's namespace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from apt_ostree.system import mounts, process

_PROPERTIES = ("Id", "ActiveState", "LoadState", "FragmentPath")


def units(names: Iterable[str]) -> dict[str, Mapping[str, str]]:
    """Return what systemd knows of these units: ActiveState, LoadState, FragmentPath, by name."""
    wanted = sorted(set(names))
    if not wanted:
        return {}
    words = ["show", f"--property={','.join(_PROPERTIES)}", "--", *wanted]
    blocks = _systemctl(words, "ask systemd about units").split("\n\n")
    rows = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in blocks]
    return dict(zip(wanted, rows, strict=False))


def active(names: Iterable[str]) -> frozenset[str]:
    """Return those of the units that are active or becoming so."""
    states = units(name for name in names if "@." not in name)
    return frozenset(
        name for name, row in states.items() if row.get("ActiveState") in ("active", "activating")
    )


def daemon_reload() -> None:
    """Make systemd read its units again."""
    _systemctl(["daemon-reload"], "make systemd read its units again")


def start(names: Sequence[str], *, block: bool = True) -> None:
    """Start units as one transaction."""
    _systemctl(["start", *([] if block else ["--no-block"]), "--", *names], f"start {', '.join(names)}")


def stop(names: Sequence[str]) -> None:
    """Stop units as one transaction."""
    _systemctl(["stop", "--", *names], f"stop {', '.join(names)}")


def create_users(configs: Sequence[str]) -> None:
    """Create the users and groups that these sysusers.d files (by name) describe."""
    _run(["systemd-sysusers", *configs], "create the packages' users")


def discard_leftovers(etc: Path) -> None:
    """Remove the scratch files that systemd-sysusers leaves beside the account files when power fails."""
    for name in ("passwd", "group", "shadow", "gshadow"):
        for path in etc.glob(f".#{name}" + "[0-9a-f]" * 16):  # tempfn_random() in systemd
            path.unlink()


def create_files(configs: Sequence[str]) -> None:
    """Create what these tmpfiles.d files (by name) describe, outside /usr and /etc."""
    # /etc goes through the journal, and /usr is a layer.
    words = ["systemd-tmpfiles", "--create", "--exclude-prefix=/etc", "--exclude-prefix=/usr", *configs]
    with mounts.in_namespace_of(1):
        done = process.run(words, what="create the packages' directories", check=False)
    # 65 and 73 say that single lines could not be applied (systemd-tmpfiles(8)); boot goes on then, so do we.
    if done.returncode not in (0, 65, 73):
        done.check_returncode()


def update_library_cache() -> None:
    """Rebuild /etc/ld.so.cache for the present /usr."""
    _run(["ldconfig", "-X"], "rebuild the cache of shared libraries")


def reload_udev() -> None:
    """Make udev read its rules again."""
    _run(["udevadm", "control", "--reload"], "make udev read its rules again", check=False)


def reload_bus() -> None:
    """Make the message bus read its configuration again."""
    words = ["busctl", "--quiet", "call", "org.freedesktop.DBus", "/", "org.freedesktop.DBus", "ReloadConfig"]
    _run(words, "make the message bus read its configuration again", check=False)


def _systemctl(words: Sequence[str], what: str) -> str:
    return _run(["systemctl", "--no-pager", *words], what)


def _run(words: Sequence[str], what: str, *, check: bool = True) -> str:
    with mounts.in_namespace_of(1):
        return process.run(words, what=what, check=check, timeout=300).stdout
