"""Points libapt at a build root's dpkg database and the host's sources, keys and archives."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import apt_pkg

from apt_ostree.errors import ExternalFailure
from apt_ostree.model import layout
from apt_ostree.system import sandbox
from apt_ostree.system.process import environment

_CACHE = Path("/var/cache/apt-ostree")
#: Hooks of the host's apt that would act on the host, or on a database that is not this one's.
_HOST_HOOKS = (
    "DPkg::Pre-Invoke",
    "DPkg::Post-Invoke",
    "DPkg::Pre-Install-Pkgs",
    "APT::Update::Pre-Invoke",
    "APT::Update::Post-Invoke",
    "APT::Update::Post-Invoke-Success",
)

#: libapt from 3.0 on names its database with --admindir, by the host's path; in the sandbox it is dpkg's own.
_WRAPPER = """#!/bin/sh
{exports}left=$#
while [ "$left" -gt 0 ]; do
    word=$1; shift; left=$((left - 1))
    if [ "$word" = --admindir ]; then shift; left=$((left - 1)); else set -- "$@" "$word"; fi
done
exec {command} "$@"
"""


def use_build_root(root: Path, scratch: Path, states: str) -> None:
    """Make libapt work on the packages of `root` for the rest of this process.

    states: apt's record of automatically installed packages. libapt gets a copy of it, see `extended_states`:
    it would write through a link that a script left in the root.
    """
    extended_states(scratch).write_text(states)
    apt_pkg.init_config()
    _CACHE.mkdir(parents=True, exist_ok=True)
    config = apt_pkg.config
    for hook in _HOST_HOOKS:
        config.clear(hook)
    settings = {
        "Dir::State::status": str(root / layout.DPKG_ADMINDIR / "status"),
        "Dir::State::extended_states": str(extended_states(scratch)),
        # Each build has a database of its own: a cache that includes it would be written (50 MB) in vain.
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": str(_CACHE / "srcpkgcache.bin"),
        "Dir::Log": str(scratch),
        "Dir::Bin::dpkg": str(write_dpkg_wrapper(root, scratch)),
        "DPkg::Use-Pty": "false",
        "DPkg::Options::": "--force-confnew",  # the tree's /etc is pristine; the three-way merge keeps edits
        "APT::Sandbox::User": config.find("APT::Sandbox::User", "_apt"),
    }
    for key, value in settings.items():
        config.set(key, value)
    config.set("DPkg::Options::", "--force-unsafe-io")
    with explained("start libapt"):
        apt_pkg.init_system()


def use_host() -> None:
    """Make libapt work on the running system's own database, to read it."""
    apt_pkg.init_config()
    for hook in _HOST_HOOKS:
        apt_pkg.config.clear(hook)
    with explained("start libapt"):
        apt_pkg.init_system()


def add_source_list(scratch: Path, lines: str) -> Path:
    """Make libapt read a further source list besides the host's; return its path."""
    parts = scratch / "sources.list.d"
    parts.mkdir(exist_ok=True)
    host = Path(apt_pkg.config.find_dir("Dir::Etc::sourceparts"))
    if host.is_dir() and host != parts:
        for entry in host.iterdir():
            (parts / entry.name).symlink_to(entry)
    extra = parts / "apt-ostree-local.list"
    extra.write_text(lines)
    apt_pkg.config.set("Dir::Etc::sourceparts", f"{parts}/")
    return extra


def extended_states(scratch: Path) -> Path:
    """Return the file in which libapt keeps which packages were installed automatically."""
    return scratch / "extended_states"


def local_directory(scratch: Path) -> Path:
    """Return the directory that the sandbox sees at the same place as the host."""
    return scratch / "local"


@contextlib.contextmanager
def only_source(source_list: Path) -> Iterator[None]:
    """Make libapt see one source list alone for a while, and keep the lists of the others."""
    changed = {
        "Dir::Etc::sourcelist": str(source_list),
        "Dir::Etc::sourceparts": "/dev/null",
        "APT::Get::List-Cleanup": "false",
        "APT::Sandbox::User": "root",  # it lies in a scratch directory that is root's alone
    }
    with _changed(changed):
        yield


@contextlib.contextmanager
def no_source() -> Iterator[None]:
    """Make libapt see no source at all for a while, and leave the caches of those that there are."""
    nowhere = dict.fromkeys(("Dir::Etc::sourcelist", "Dir::Etc::sourceparts"), "/dev/null")
    with _changed({**nowhere, "Dir::Cache::pkgcache": "", "Dir::Cache::srcpkgcache": ""}):
        yield


@contextlib.contextmanager
def _changed(changed: Mapping[str, str]) -> Iterator[None]:
    saved = {key: apt_pkg.config.find(key) for key in changed}
    for key, value in changed.items():
        apt_pkg.config.set(key, value)
    try:
        yield
    finally:
        for key, value in saved.items():
            apt_pkg.config.set(key, value)


@contextlib.contextmanager
def explained(what: str, hint: str | None = None) -> Iterator[None]:
    """Turn libapt's errors inside into ExternalFailure, one detail a message."""
    try:
        yield
    except (apt_pkg.Error, SystemError) as error:
        messages = [line.strip() for line in str(error).replace("E:", "\n").splitlines() if line.strip(" ,")]
        raise ExternalFailure(f"cannot {what}", details=messages, hint=hint) from error


def dpkg_wrapper(scratch: Path) -> Path:
    """Return the path of the program that libapt runs as dpkg."""
    return scratch / "dpkg"


def dpkg_command(root: Path, scratch: Path, visible: frozenset[Path]) -> list[str]:
    """Return the command line that runs the build root's dpkg; the directories that it sees are made."""
    archives = Path(apt_pkg.config.find_dir("Dir::Cache::archives"))
    local = local_directory(scratch)
    local.mkdir(exist_ok=True)
    archives.mkdir(parents=True, exist_ok=True)
    return sandbox.argv(root, ["dpkg"], read_only=sorted({archives, local, *visible}))


def write_dpkg_wrapper(root: Path, scratch: Path, visible: frozenset[Path] = frozenset()) -> Path:
    """Write the program that libapt runs as dpkg: the build root's own dpkg, in the sandbox.

    visible: directories with archives, besides the cache (those of file: sources are used where they are).
    """
    words = dpkg_command(root, scratch, visible)
    exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in environment().items())
    wrapper = dpkg_wrapper(scratch)
    wrapper.write_text(_WRAPPER.format(exports=exports, command=shlex.join(words)))
    wrapper.chmod(0o700)
    return wrapper
