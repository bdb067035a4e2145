"""Configures libapt for a build root's dpkg database and the host's sources, keys and archives."""

from __future__ import annotations

import contextlib
import platform
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import apt_pkg

from apt_ostree.errors import ExternalFailure
from apt_ostree.model import layout
from apt_ostree.system import sandbox
from apt_ostree.system.process import environment

_CACHE = Path("/var/cache/apt-ostree")
#: Hooks of the host's apt that would act on the host or on another database.
_HOST_HOOKS = (
    "DPkg::Pre-Invoke",
    "DPkg::Post-Invoke",
    "DPkg::Pre-Install-Pkgs",
    "APT::Update::Pre-Invoke",
    "APT::Update::Post-Invoke",
    "APT::Update::Post-Invoke-Success",
)

#: Packages that apt never removes automatically (apt.conf(5)), and where `is_protected` has their patterns.
_PROTECTED, _PATTERNS = "APT::NeverAutoRemove", "APT-Ostree::NeverAutoRemove"

#: libapt since 3.0 passes --admindir with the host's path, which is dropped: dpkg's default fits the sandbox.
_WRAPPER = """#!/bin/sh
{exports}left=$#
while [ "$left" -gt 0 ]; do
    argument=$1; shift; left=$((left - 1))
    if [ "$argument" = --admindir ]; then shift; left=$((left - 1)); else set -- "$@" "$argument"; fi
done
exec {command} "$@"
"""


def use_build_root(root: Path, scratch: Path, states: str, architectures: Sequence[str]) -> None:
    """Configure libapt for the packages of `root`, for the rest of this process.

    states: apt's record of automatically installed packages. libapt gets a copy of it, see `extended_states`,
        as it would follow a symlink that a script left in the root.
    architectures: those of the root's dpkg, if it has others than the native one.
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
        # A cache that includes the database of this build (50 MB) could not be reused.
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": str(_CACHE / "srcpkgcache.bin"),
        "Dir::Log": str(scratch),
        "Dir::Bin::dpkg": str(write_dpkg_wrapper(root, scratch)),
        "DPkg::Use-Pty": "false",
        "APT::Sandbox::User": config.find("APT::Sandbox::User", "_apt"),
    }
    for key, value in settings.items():
        config.set(key, value)
    for option in (*sandbox.KEEP_CHANGED, "--force-unsafe-io"):
        config.set("DPkg::Options::", option)
    _leave_protection_to_us()
    # libapt would ask dpkg, which has no /var in the root yet.
    config.clear("APT::Architectures")
    for name in architectures or (config.find("APT::Architecture"),):
        config.set("APT::Architectures::", name)
    with explained("start libapt"):
        apt_pkg.init_system()


def _leave_protection_to_us() -> None:
    """Let an uninstallation remove all that the installation brought, with what apt protects."""
    patterns = apt_pkg.config.value_list(_PROTECTED)
    for key in (_PROTECTED, _PATTERNS):
        apt_pkg.config.clear(key)
    for pattern in patterns:
        apt_pkg.config.set(f"{_PATTERNS}::", pattern)


def is_protected(name: str) -> bool:
    """Return whether apt never removes a package automatically, such as a server that has a database."""
    return any(_matches(pattern, name) for pattern in apt_pkg.config.value_list(_PATTERNS))


def _matches(pattern: str, name: str) -> bool:
    """Return whether a pattern of the configuration matches; one that is no regular expression does not."""
    with contextlib.suppress(re.error):
        return re.search(pattern, name, re.IGNORECASE) is not None
    return False


def use_host() -> None:
    """Configure libapt for reading the running system's own database."""
    apt_pkg.init_config()
    for hook in _HOST_HOOKS:
        apt_pkg.config.clear(hook)
    with explained("start libapt"):
        apt_pkg.init_system()


def add_source_list(scratch: Path, name: str, lines: str) -> Path:
    """Add a source list to those of the host; return its path."""
    parts = scratch / "sources.list.d"
    parts.mkdir(exist_ok=True)
    host = Path(apt_pkg.config.find_dir("Dir::Etc::sourceparts"))
    if host.is_dir() and host != parts:
        for entry in host.iterdir():
            (parts / entry.name).symlink_to(entry)
    extra = parts / f"apt-ostree-{name}.list"
    extra.write_text(lines)
    apt_pkg.config.set("Dir::Etc::sourceparts", f"{parts}/")
    return extra


def cached_archive(name: str, version: str, architecture: str) -> Path:
    """Return where libapt keeps the downloaded archive of a package."""
    version = version.replace(":", "%3a")
    return Path(apt_pkg.config.find_dir("Dir::Cache::archives"), f"{name}_{version}_{architecture}.deb")


def extended_states(scratch: Path) -> Path:
    """Return the file in which libapt records automatically installed packages."""
    return scratch / "extended_states"


def local_directory(scratch: Path) -> Path:
    """Return the directory that has the same path in the sandbox as on the host."""
    return scratch / "local"


def kept_directory(scratch: Path) -> Path:
    """Return the directory with the archives of packages that are kept from the present tree."""
    return local_directory(scratch) / "kept"


@contextlib.contextmanager
def only_source(source_list: Path) -> Iterator[None]:
    """Make libapt use only one source list inside the block, and keep the package lists of the others."""
    settings = {
        "Dir::Etc::sourcelist": str(source_list),
        "Dir::Etc::sourceparts": "/dev/null",
        "APT::Get::List-Cleanup": "false",
        "APT::Sandbox::User": "root",  # only root can read the scratch directory
    }
    with changed(settings):
        yield


@contextlib.contextmanager
def no_source() -> Iterator[None]:
    """Make libapt use no source inside the block, and leave its caches unchanged."""
    nowhere = dict.fromkeys(("Dir::Etc::sourcelist", "Dir::Etc::sourceparts"), "/dev/null")
    with changed({**nowhere, "Dir::Cache::pkgcache": "", "Dir::Cache::srcpkgcache": ""}):
        yield


@contextlib.contextmanager
def changed(settings: Mapping[str, str]) -> Iterator[None]:
    """Change settings of libapt inside the block."""
    saved = {key: apt_pkg.config.find(key) for key in settings}
    for key, value in settings.items():
        apt_pkg.config.set(key, value)
    try:
        yield
    finally:
        for key, value in saved.items():
            apt_pkg.config.set(key, value)


@contextlib.contextmanager
def explained(what: str, hint: str | None = None) -> Iterator[None]:
    """Raise ExternalFailure for libapt's errors inside the block, with each message as a detail."""
    try:
        yield
    except (apt_pkg.Error, SystemError) as error:
        messages = [line.strip() for line in str(error).replace("E:", "\n").splitlines() if line.strip(" ,")]
        raise ExternalFailure(f"cannot {what}", details=messages, hint=hint) from error


def dpkg_wrapper(scratch: Path) -> Path:
    """Return the path of the program that libapt runs as dpkg."""
    return scratch / "dpkg"


def dpkg_command(root: Path, scratch: Path, visible: frozenset[Path]) -> list[str]:
    """Return the command line that runs the build root's dpkg; directories that it needs are created.

    visible: directories with archives, besides the cache.
    """
    archives = Path(apt_pkg.config.find_dir("Dir::Cache::archives"))
    local = local_directory(scratch)
    local.mkdir(exist_ok=True)
    archives.mkdir(parents=True, exist_ok=True)
    machine = platform.node()  # scripts write it into configuration files
    return sandbox.argv(root, ["dpkg"], read_only=sorted({archives, local, *visible}), hostname=machine)


def write_dpkg_wrapper(root: Path, scratch: Path, visible: frozenset[Path] = frozenset()) -> Path:
    """Write the program that libapt runs as dpkg: the build root's own dpkg, in the sandbox; return its path.

    visible: directories with archives, besides the cache (archives of file: sources are not copied).
    """
    command = dpkg_command(root, scratch, visible)
    exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in environment().items())
    wrapper = dpkg_wrapper(scratch)
    wrapper.write_text(_WRAPPER.format(exports=exports, command=shlex.join(command)))
    wrapper.chmod(0o700)
    return wrapper
