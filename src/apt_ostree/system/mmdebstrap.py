"""mmdebstrap(1): makes a root directory of Debian packages, and lists these in advance.

It runs in its own mount and process namespaces, so that a cancel or a crash leaves no mount and no process.
"""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from apt_ostree.errors import ExternalFailure
from apt_ostree.model.package import Package
from apt_ostree.system import process

_UNSHARE = ("unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--propagation", "private")
_NAMELESS = '--setup-hook=echo localhost >"$1/etc/hostname"'
#: The lists are those that `refresh` has downloaded, and the caller's.
_SKIP = "--skip=update,cleanup/apt/lists"
_UPDATE = (
    '--setup-hook=APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" '
    "apt-get update --error-on=any -o pkgCacheFile::Generate=false"
)
#: The file has all of --aptopt. Where lists and preferences are is not for the tree.
_DROP_PLACES = (
    '--customize-hook=file="$1/etc/apt/apt.conf.d/99mmdebstrap"; '
    'sed -i "/^Dir::/d" "$file" && if [ ! -s "$file" ]; then rm "$file"; fi'
)
#: Licences stay: who passes on a tree has to give them, too.
_NO_DOCUMENTATION = (
    *(f"path-exclude=/usr/share/{name}/*" for name in ("doc", "info", "man", "doc-base", "gtk-doc")),
    "path-include=/usr/share/doc/*/copyright",
)
#: Where apt looks for archives, in the root.
_ARCHIVES = "var/cache/apt/archives"
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
    documentation: install documentation, too; the tree's dpkg leaves it out otherwise, now and later.
    locked: NAME -> the version of a package that is taken if an archive has it.
    """

    suite: str
    variant: str
    sources: tuple[str, ...]
    packages: tuple[str, ...]
    recommends: bool = False
    check_valid_until: bool = True
    documentation: bool = True
    locked: Mapping[str, str] = field(default_factory=dict)


def _contained(*, offline: bool = False) -> tuple[str, ...]:
    """Return the words before those of mmdebstrap. offline: there is no network.

    All processes are killed with this one, and the mounts end with the last process. Scripts do not learn the
    name of the machine that composes.
    """
    return (
        *("setpriv", "--pdeathsig", "KILL"),
        *(*_UNSHARE, *(("--net",) if offline else ())),
        *("sh", "-c", 'hostname localhost && exec "$0" "$@"'),
    )


def default_sources(suite: str, components: Sequence[str]) -> tuple[str, ...]:
    """Return the lines of sources.list(5) that mmdebstrap takes for a suite when it is given no mirror."""
    # A failing hook stops mmdebstrap after it has written the sources, before anything is downloaded.
    hook = 'printf "sources:%s\\n" "$(cat "$1"/etc/apt/sources.list | tr "\\n" "|")"; exit 1'
    options = ["--mode=root", "--variant=custom", "--format=null", f"--components={','.join(components)}"]
    done = process.run(
        [*_contained(), "mmdebstrap", *options, f"--setup-hook={hook}", suite, "/dev/null"],
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


def refresh(bootstrap: Bootstrap, lists: Path) -> None:
    """Bring the package lists in a directory up to date; apt checks who signed them."""
    (lists / "partial").mkdir(exist_ok=True)
    options = ["--mode=root", "--variant=custom", "--format=null", _SKIP, *_places(bootstrap, lists), _UPDATE]
    process.run(
        [*_contained(), "mmdebstrap", *options, bootstrap.suite, "/dev/null", *copied(bootstrap.sources)],
        what=f"download the package lists of {bootstrap.suite}",
        merge_stderr=True,
    )


def make_root(
    bootstrap: Bootstrap,
    root: Path,
    lists: Path,
    *,
    log: Path,
    shelf: Shelf | None = None,
    offline: bool = False,
) -> None:
    """Make the root directory.

    lists: the package lists, see `refresh`.
    log: the file to which the output is appended.
    shelf: archives that need not be downloaded, and where downloaded ones are copied to.
    offline: there is no network.
    """
    with _preferences(bootstrap.locked) as preferences:
        options = [*_options(bootstrap, lists), *preferences, _DROP_PLACES, _NAMELESS]
        options += shelf.hooks() if shelf else []
        options += [bootstrap.suite, str(root), *copied(bootstrap.sources)]
        process.run(
            [*_contained(offline=offline), "mmdebstrap", *options],
            what=f"make a root directory of {bootstrap.suite}",
            env={
                "INITRD": "No"
            },  # the kernel packages' hooks make no initramfs: ours needs the ostree module
            log=log,
        )
    (root / "etc/apt/sources.list").write_text("".join(f"{line}\n" for line in bootstrap.sources))


@dataclass(frozen=True, slots=True)
class Shelf:
    """Directories of archives beside a root directory that is made.

    given: archives that are there.
    taken: gets a copy of each archive.
    """

    given: Path
    taken: Path

    def hooks(self) -> list[str]:
        """Return the options of mmdebstrap(1)."""
        given, taken = (shlex.quote(str(path)) for path in (self.given, self.taken))
        return [
            f'--setup-hook=mkdir -p "$1/{_ARCHIVES}" && cp -r {given}/. "$1/{_ARCHIVES}/"',
            "--skip=essential/unlink",
            f'--customize-hook=find "$1/{_ARCHIVES}" -maxdepth 1 -type f -name "*.deb"'
            f" -exec cp -t {taken} {{}} +",
        ]

    @property
    def downloaded(self) -> list[Path]:
        """Return the archives that were not given."""
        there = {path.name for path in self.given.iterdir()}
        return [path for path in self.taken.iterdir() if path.name not in there]


def archive_name(package: Package) -> str:
    """Return how apt names a package's archive."""
    quoted = (
        text.replace("%", "%25").replace("_", "%5f").replace(":", "%3a")
        for text in (package.name.partition(":")[0], package.version, package.architecture)
    )
    return "_".join(quoted) + ".deb"


def simulate(bootstrap: Bootstrap, lists: Path) -> tuple[Package, ...]:
    """Return the packages that `make_root` would install, sorted."""
    command = ("mmdebstrap", "--simulate", "--verbose", "--format=null")
    with _preferences(bootstrap.locked) as preferences:
        options = [*_options(bootstrap, lists), *preferences]
        done = process.run(
            [*_contained(), *command, *options, bootstrap.suite, "/dev/null", *copied(bootstrap.sources)],
            what=f"resolve the packages of {bootstrap.suite}",
            merge_stderr=True,
        )
    return parse_simulation(done.stdout.splitlines())


def copied(sources: Sequence[str]) -> list[str]:
    """Return sources whose archives apt copies: dpkg runs in the root, where a local one is not visible."""
    return [_LOCAL.sub(r"\1copy:", line) for line in sources]


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
        yield [f'--aptopt=Dir::Etc::Preferences "{file.name}"']


def parse_simulation(lines: Iterable[str]) -> tuple[Package, ...]:
    """Return the packages that apt's `Inst` lines name, sorted."""
    matches = (_INSTALL.match(line) for line in lines)
    return tuple(
        sorted({Package(*match.group("name", "version", "architecture")) for match in matches if match})
    )


def _places(bootstrap: Bootstrap, lists: Path) -> list[str]:
    places = [f'--aptopt=Dir::State::Lists "{lists}/"']
    if not bootstrap.check_valid_until:
        places.append('--aptopt=Acquire::Check-Valid-Until "false"')
    return places


def _options(bootstrap: Bootstrap, lists: Path) -> list[str]:
    options = ["--mode=root", f"--variant={bootstrap.variant}", _SKIP, *_places(bootstrap, lists)]
    if bootstrap.packages:
        options.append(f"--include={','.join(bootstrap.packages)}")
    if bootstrap.recommends:
        options.append('--aptopt=APT::Install-Recommends "true"')
    if not bootstrap.documentation:
        options += [f"--dpkgopt={rule}" for rule in _NO_DOCUMENTATION]
    return options


def native_architecture() -> str:
    """Return dpkg's name of this machine's architecture, such as amd64."""
    done = process.run(["dpkg", "--print-architecture"], what="find this machine's architecture")
    return done.stdout.strip()


def tools() -> tuple[str, ...]:
    """Return NAME VERSION of this machine's packages that decide what a root directory has."""
    names = ("apt", "dpkg", "libapt-pkg*", "mmdebstrap", "tar")
    done = process.run(
        ["dpkg-query", "--show", "--showformat=${binary:Package} ${Version}\\n", *names],
        what="find the versions of apt and mmdebstrap",
        check=False,  # one of the names may match nothing
    )
    return tuple(sorted(done.stdout.splitlines()))
