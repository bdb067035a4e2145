"""apt-get(8) on the packages of a base that is no running system: what a request needs, and its archives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.errors import Refused
from apt_ostree.model.package import Package
from apt_ostree.system import process


@dataclass(frozen=True, slots=True)
class World:
    """A directory with a configuration of apt.

    path: of the directory.
    """

    path: Path

    @property
    def archives(self) -> Path:
        """Return the directory of downloaded archives."""
        return self.path / "archives"

    def simulate(self, names: Sequence[str]) -> str:
        """Return what apt would do to install packages; raise Refused if it finds no way."""
        code, output = self._run(["--simulate", "install", "--", *names], "resolve the packages", check=False)
        if code != 0:
            raise Refused(
                "the packages cannot be installed on the base",
                details=process.tail(output.splitlines()),
                hint="the archives may have newer versions than the base: compose it anew first",
            )
        return output

    def fetch(self, names: Sequence[str]) -> None:
        """Download the archives of packages, and of what they need; ExternalFailure if it fails."""
        self._run(["--download-only", "install", "--", *names], "download the packages")

    def fetch_alone(self, names: Sequence[str]) -> None:
        """Download the archives of packages alone; ExternalFailure if that fails."""
        self._run(["download", "--", *names], "download the packages")

    def _run(self, words: Sequence[str], what: str, *, check: bool = True) -> tuple[int, str]:
        """Run apt-get; return its exit code and its output."""
        done = process.run(
            ["apt-get", "--yes", "--quiet", *words],
            what=what,
            env={"APT_CONFIG": str(self.path / "apt.conf"), "DEBIAN_FRONTEND": "noninteractive"},
            cwd=self.archives,
            check=check,
            merge_stderr=True,
        )
        return done.returncode, done.stdout


def make_world(
    path: Path,
    lists: Path,
    sources: Iterable[str],
    *,
    status: bytes,
    base: Iterable[Package],
    recommends: bool,
    architecture: str,
) -> World:
    """Make the configuration in an empty directory; the packages of the base keep their versions.

    lists: the package lists. sources: lines of sources.list(5).
    status: the dpkg database of the base. recommends: install what packages recommend.
    """
    (path / "archives/partial").mkdir(parents=True)
    (path / "status").write_bytes(status)
    (path / "sources.list").write_text("".join(f"{line}\n" for line in sources))
    rows = (f"Package: {one.name}\nPin: version {one.version}\nPin-Priority: 1001\n" for one in base)
    (path / "preferences").write_text("\n".join(rows))
    settings = {
        "Dir": f"{path}/",
        "Dir::State": f"{path}/",
        "Dir::State::Lists": f"{lists}/",
        "Dir::State::status": f"{path}/status",
        "Dir::State::extended_states": f"{path}/extended_states",
        "Dir::Cache": f"{path}/",
        "Dir::Cache::archives": f"{path}/archives/",
        "Dir::Etc": f"{path}/",
        "Dir::Etc::SourceList": f"{path}/sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Main": "/dev/null",
        "Dir::Etc::Parts": "/dev/null",
        "Dir::Etc::Preferences": f"{path}/preferences",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::Log": f"{path}/",
        "APT::Architecture": architecture,
        "APT::Install-Recommends": "true" if recommends else "false",
        "APT::Sandbox::User": "root",  # the directory is root's alone
        "Acquire::Check-Valid-Until": "false",  # checked when the lists were downloaded
        "Debug::NoLocking": "true",
    }
    (path / "apt.conf").write_text("".join(f'{key} "{value}";\n' for key, value in settings.items()))
    return World(path)
