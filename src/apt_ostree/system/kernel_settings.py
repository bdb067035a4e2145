"""Settings of the running kernel: modules, sysctl, binary formats, and profiles of AppArmor.

systemd's programs and apparmor_parser read the files of /usr and /etc, always in PID 1's namespace. Only what
they cannot take back is read from and written to /proc and /sys here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from apt_ostree.errors import ExternalFailure
from apt_ostree.model.triggers import Trigger
from apt_ostree.system import mounts, process

_SYSCTL = Path("/proc/sys")
_FORMATS = Path("/proc/sys/fs/binfmt_misc")
_APPARMOR = Path("/sys/kernel/security/apparmor")
_CAP_SYS_MODULE = 16  # linux/capability.h
_PATTERN = frozenset("*?[")
_TIMEOUT = 300.0  # seconds


def possible() -> frozenset[Trigger]:
    """Return the triggers that this kernel allows; a container's does not allow all."""
    allowed = {
        Trigger.MODULES: bool(int(_status("CapEff"), 16) >> _CAP_SYS_MODULE & 1),
        Trigger.SYSCTL: _is_writable(_SYSCTL / "net"),
        Trigger.BINFMT: _is_writable(_SYSCTL),
        Trigger.APPARMOR: os.access(_APPARMOR / ".load", os.W_OK),
    }
    return frozenset(trigger for trigger in Trigger if allowed.get(trigger, True))


def _is_writable(path: Path) -> bool:
    return not os.statvfs(path).f_flag & os.ST_RDONLY


def _status(field: str) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{field}:"))


def load_modules(configs: Sequence[str]) -> None:
    """Load the modules that these modules-load.d files (by name) list; ExternalFailure if one fails."""
    _run(["/usr/lib/systemd/systemd-modules-load", *configs], "load kernel modules")


# --- sysctl


def expand(keys: Iterable[str]) -> tuple[str, ...]:
    """Return the keys that exist; a pattern stands for all that match."""
    patterns = ((key, _SYSCTL.glob(key) if _PATTERN & set(key) else (_SYSCTL / key,)) for key in keys)
    paths = (path for _key, matching in patterns for path in sorted(matching) if path.is_file())
    return tuple(dict.fromkeys(str(path.relative_to(_SYSCTL)) for path in paths))


def value(key: str) -> str | None:
    """Return the value of a key, or None if it does not exist or cannot be read."""
    try:
        return (_SYSCTL / key).read_text(errors="replace").strip()
    except OSError:
        return None


def set_value(key: str, value: str) -> None:
    """Set a key; raise ExternalFailure if the kernel refuses it."""
    _write(_SYSCTL / key, value, f"set {key}")


def apply_sysctl(keys: Collection[str]) -> None:
    """Set keys as all of sysctl.d says, in systemd's order; raise ExternalFailure if one cannot be set."""
    if keys:
        prefixes = (f"--prefix={key}" for key in keys)
        _run(["/usr/lib/systemd/systemd-sysctl", *prefixes], "set kernel parameters")


# --- binary formats


def formats() -> frozenset[str]:
    """Return the names of the registered formats; ExternalFailure if they cannot be read."""
    with mounts.in_namespace_of(1), _explained("read the binary formats"):  # an automount
        names = {path.name for path in _FORMATS.iterdir()}
    return frozenset(names - {"register", "status"})


def register_formats(configs: Sequence[str]) -> None:
    """Register the formats of these binfmt.d files (by name) again; ExternalFailure if one fails."""
    _run(["/usr/lib/systemd/systemd-binfmt", *configs], "register binary formats")


def remove_format(name: str) -> None:
    """Remove a format; raise ExternalFailure if the kernel refuses it."""
    with mounts.in_namespace_of(1):
        _write(_FORMATS / name, "-1", f"remove the binary format {name}")


# --- AppArmor


def profiles() -> frozenset[str]:
    """Return the names of the loaded profiles, without those that are part of another one.

    Raises ExternalFailure if they cannot be read.
    """
    with _explained("read the AppArmor profiles"):
        lines = (_APPARMOR / "profiles").read_text().splitlines()
    names = (line.rpartition(" (")[0] for line in lines)
    return frozenset(name for name in names if "//" not in name)


def profiles_in(file: str) -> tuple[str, ...]:
    """Return the names of the profiles that a file defines; none if it cannot be read."""
    command = ["apparmor_parser", "--names", "--quiet", "--", file]
    return tuple(name for name in _run(command, f"read {file}", check=False).splitlines() if "//" not in name)


def load_profiles(paths: Sequence[str]) -> None:
    """Load the profiles of files, or of a directory; raise ExternalFailure if one cannot be loaded.

    A profile of a file is compiled: the age of a file of a tree says nothing about the cache.
    """
    fresh = [] if any(Path(path).is_dir() for path in paths) else ["--skip-read-cache"]
    command = ["apparmor_parser", "--replace", "--write-cache", "--quiet", *fresh, "--", *paths]
    _run(command, "load AppArmor profiles")


def remove_profile(name: str) -> None:
    """Remove a profile; its processes run unconfined. Raises ExternalFailure if the kernel refuses it."""
    _write(_APPARMOR / ".remove", name, f"remove the AppArmor profile {name}")


def _write(path: Path, text: str, what: str) -> None:
    with _explained(what):
        path.write_text(text)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ExternalFailure(f"cannot {what}: {error.strerror}") from error


def _run(command: Sequence[str], what: str, *, check: bool = True) -> str:
    with mounts.in_namespace_of(1):
        return process.run(command, what=what, check=check, timeout=_TIMEOUT).stdout
