"""mmdebstrap(1): makes a root directory of Debian packages, and lists these in advance.

It runs in its own mount and process namespaces, so that a cancel or a crash leaves no mount and no process.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from apt_ostree.errors import ExternalFailure
from apt_ostree.model.package import Package
from apt_ostree.system import process

#: All processes are killed with this one, and the mounts end with the last process.
#: Scripts do not learn the name of the machine that composes.
_CONTAINED = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--propagation", "private"),
    *("sh", "-c", 'hostname localhost && exec "$0" "$@"'),
)
_NAMELESS = '--setup-hook=echo localhost >"$1/etc/hostname"'
#: Kept for the commit's metadata; the caller removes them with the rest of /var.
_SKIP = "cleanup/apt/lists"
#: The file has all of --aptopt, and is not there without one. Where preferences are is not for the tree.
_DROP_PREFERENCES = (
    '--customize-hook=file="$1/etc/apt/apt.conf.d/99mmdebstrap"; '
    'sed -i "/^Dir::Etc::Preferences/d" "$file" && if [ ! -s "$file" ]; then rm "$file"; fi'
)
_LOCAL = re.compile(r"^(deb (?:\[[^]]*\] )?)file:")
_INSTALL = re.compile(r"^Inst (?P<name>\S+) (?:\[\S+\] )?\((?P<version>\S+) .*?\[(?P<architecture>[^]]+)\]\)")


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """A root directory to make.

    suite: such as trixie.
    variant: of mmdebstrap(1), such as minbase.
    sources: complete lines of sources.list(5).
    packages: names of further packages, as mmdebstrap's --include.
    recommends: install recommended packages, too.
    check_valid_until: refuse outdated Release files.
    locked: NAME -> the version of a package that is taken if an archive has it.
    """

    suite: str
    variant: str
    sources: tuple[str, ...]
    packages: tuple[str, ...]
    recommends: bool = False
    check_valid_until: bool = True
    locked: Mapping[str, str] = field(default_factory=dict)


def default_sources(suite: str, components: Sequence[str]) -> tuple[str, ...]:
    """Return the lines of sources.list(5) that mmdebstrap takes for a suite when it is given no mirror."""
    # A failing hook stops mmdebstrap after it has written the sources, before anything is downloaded.
    hook = 'printf "sources:%s\\n" "$(cat "$1"/etc/apt/sources.list | tr "\\n" "|")"; exit 1'
    options = ["--mode=root", "--variant=custom", "--format=null", f"--components={','.join(components)}"]
    done = process.run(
        [*_CONTAINED, "mmdebstrap", *options, f"--setup-hook={hook}", suite, "/dev/null"],
        what=f"find the default archives of {suite}",
        check=False,
        merge_stderr=True,
    )
    match = re.search(r"^sources:(.+)$", done.stdout, re.MULTILINE)
    if not match:
        raise ExternalFailure(
            f"cannot find the default archives of {suite}",
            details=process.tail(done.stdout.splitlines()),
            hint="name a mirror for each entry of the treefile's archives",
            internals=(process.command_line(done.args),),
        )
    return tuple(line for line in match[1].split("|") if line.startswith("deb"))


def make_root(bootstrap: Bootstrap, root: Path, *, log: Path) -> None:
    """Make the root directory; it keeps the downloaded package lists in /var/lib/apt/lists.

    log: the file to which the output is appended.
    """
    # dpkg runs inside the root, where a local archive is not visible: apt has to copy its packages.
    sources = [_LOCAL.sub(r"\1copy:", line) for line in bootstrap.sources]
    with _preferences(bootstrap.locked) as preferences:
        options = [*_options(bootstrap), *preferences, f"--skip={_SKIP}", _NAMELESS]
        process.run(
            [*_CONTAINED, "mmdebstrap", *options, bootstrap.suite, root, *sources],
            what=f"make a root directory of {bootstrap.suite}",
            env={
                "INITRD": "No"
            },  # the kernel packages' hooks make no initramfs: ours needs the ostree module
            log=log,
        )
    (root / "etc/apt/sources.list").write_text("".join(f"{line}\n" for line in bootstrap.sources))


def simulate(bootstrap: Bootstrap) -> tuple[Package, ...]:
    """Return the packages that `make_root` would install, sorted."""
    command = ("mmdebstrap", "--simulate", "--verbose", "--format=null")
    with _preferences(bootstrap.locked) as preferences:
        options = [*_options(bootstrap), *preferences]
        done = process.run(
            [*_CONTAINED, *command, *options, bootstrap.suite, "/dev/null", *bootstrap.sources],
            what=f"resolve the packages of {bootstrap.suite}",
            merge_stderr=True,
        )
    return parse_simulation(done.stdout.splitlines())


@contextmanager
def _preferences(locked: Mapping[str, str]) -> Iterator[list[str]]:
    """Yield the option that has apt take these versions, also older ones (apt_preferences(5))."""
    if not locked:
        yield []
        return
    rows = (
        f"Package: {name}\nPin: version {version}\nPin-Priority: 1001\n" for name, version in locked.items()
    )
    with tempfile.NamedTemporaryFile("w", prefix="apt-ostree-", suffix=".pref") as file:
        file.write("\n".join(rows))
        file.flush()
        yield [f'--aptopt=Dir::Etc::Preferences "{file.name}"', _DROP_PREFERENCES]


def parse_simulation(lines: Iterable[str]) -> tuple[Package, ...]:
    """Return the packages that apt's `Inst` lines name, sorted."""
    matches = (_INSTALL.match(line) for line in lines)
    return tuple(
        sorted({Package(*match.group("name", "version", "architecture")) for match in matches if match})
    )


def _options(bootstrap: Bootstrap) -> list[str]:
    options = ["--mode=root", f"--variant={bootstrap.variant}"]
    if bootstrap.packages:
        options.append(f"--include={','.join(bootstrap.packages)}")
    if bootstrap.recommends:
        options.append('--aptopt=APT::Install-Recommends "true"')
    if not bootstrap.check_valid_until:
        options.append('--aptopt=Acquire::Check-Valid-Until "false"')
    return options


def native_architecture() -> str:
    """Return dpkg's name of this machine's architecture, such as amd64."""
    done = process.run(["dpkg", "--print-architecture"], what="find this machine's architecture")
    return done.stdout.strip()
