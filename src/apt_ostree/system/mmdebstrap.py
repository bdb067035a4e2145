"""mmdebstrap(1): makes a root directory of Debian packages, and tells in advance which ones.

Runs in a mount and process namespace of its own, so that a cancel or a crash leaves no mount and no process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.errors import ExternalFailure
from apt_ostree.model.package import Package
from apt_ostree.system import process

#: Everything dies with us, and mounts are gone with the last process.
_CONTAINED = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"),
)
#: Kept for the commit's metadata; the caller removes them with the rest of /var.
_SKIP = "cleanup/apt/lists"
_LOCAL = re.compile(r"^(deb (?:\[[^]]*\] )?)file:")
_INSTALL = re.compile(r"^Inst (?P<name>\S+) (?:\[\S+\] )?\((?P<version>\S+) .*?\[(?P<architecture>[^]]+)\]\)")


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """What to make. sources: lines of sources.list(5), complete."""

    suite: str
    variant: str
    sources: tuple[str, ...]
    packages: tuple[str, ...]
    recommends: bool = False
    check_valid_until: bool = True


def default_sources(suite: str, components: Sequence[str]) -> tuple[str, ...]:
    """Return the lines of sources.list(5) that mmdebstrap takes for a suite when it is given no mirror."""
    # A hook that fails stops it right after it has written them, before anything is downloaded.
    hook = 'printf "sources:%s\\n" "$(cat "$1"/etc/apt/sources.list | tr "\\n" "|")"; exit 1'
    words = ["--mode=root", "--variant=custom", "--format=null", f"--components={','.join(components)}"]
    done = process.run(
        [*_CONTAINED, "mmdebstrap", *words, f"--setup-hook={hook}", suite, "/dev/null"],
        what=f"find the default archives of {suite}",
        check=False,
        merge_stderr=True,
    )
    found = re.search(r"^sources:(.+)$", done.stdout, re.MULTILINE)
    if not found:
        raise ExternalFailure(
            f"cannot find the default archives of {suite}",
            details=process.tail(done.stdout.splitlines()),
            hint="name a mirror for each entry of the treefile's archives",
            internals=(process.command_line(done.args),),
        )
    return tuple(line for line in found[1].split("|") if line.startswith("deb"))


def make_root(wanted: Bootstrap, root: Path, *, log: Path) -> None:
    """Make the root directory; it keeps the downloaded package lists in /var/lib/apt/lists."""
    # dpkg runs inside the root, where packages of a local archive are not to be seen: let apt copy them.
    sources = [_LOCAL.sub(r"\1copy:", line) for line in wanted.sources]
    options = [*_options(wanted), f"--skip={_SKIP}"]
    process.run(
        [*_CONTAINED, "mmdebstrap", *options, wanted.suite, root, *sources],
        what=f"make a root directory of {wanted.suite}",
        env={"INITRD": "No"},  # the kernel packages' hooks make no initramfs: ours needs the ostree module
        log=log,
    )
    (root / "etc/apt/sources.list").write_text("".join(f"{line}\n" for line in wanted.sources))


def simulate(wanted: Bootstrap) -> tuple[Package, ...]:
    """Return the packages that `make_root` would install, sorted."""
    words = ("mmdebstrap", "--simulate", "--verbose", "--format=null")
    done = process.run(
        [*_CONTAINED, *words, *_options(wanted), wanted.suite, "/dev/null", *wanted.sources],
        what=f"resolve the packages of {wanted.suite}",
        merge_stderr=True,
    )
    return parse_simulation(done.stdout.splitlines())


def parse_simulation(lines: Iterable[str]) -> tuple[Package, ...]:
    """Return the packages that apt's `Inst` lines name, sorted."""
    found = (_INSTALL.match(line) for line in lines)
    return tuple(
        sorted({Package(*match.group("name", "version", "architecture")) for match in found if match})
    )


def _options(wanted: Bootstrap) -> list[str]:
    options = ["--mode=root", f"--variant={wanted.variant}"]
    if wanted.packages:
        options.append(f"--include={','.join(wanted.packages)}")
    if wanted.recommends:
        options.append('--aptopt=APT::Install-Recommends "true"')
    if not wanted.check_valid_until:
        options.append('--aptopt=Acquire::Check-Valid-Until "false"')
    return options


def native_architecture() -> str:
    """Return dpkg's name of this machine's architecture."""
    done = process.run(["dpkg", "--print-architecture"], what="find this machine's architecture")
    return done.stdout.strip()
