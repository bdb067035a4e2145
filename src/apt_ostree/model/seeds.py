"""Seeds: the state below /var that a tree gives to a machine once.

What maintainer scripts and packages put below /var becomes seeds: each is a path with all below it, such as
/var/lib/postgresql. A tree holds a copy of them (`layout.FACTORY`) and a manifest. A machine gets a seed if
nothing is at its place, and only once. It keeps the manifest of the seeds that it was given. A later tree may
have other files in the same seed, as dpkg's triggers write there; these follow while nobody changed them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from apt_ostree.errors import AptOstreeError
from apt_ostree.model import layout

#: Directories that belong to no single package; what is in them are seeds of their own.
SHARED = frozenset(
    {
        "var",
        "var/backups",
        "var/cache",
        "var/lib",
        "var/lib/misc",
        "var/local",
        "var/log",
        "var/lib/systemd",
        "var/games",
        "var/mail",
        "var/opt",
        "var/spool",
        "var/spool/cron",
        "var/www",
        *(path.removeprefix("/") for path in layout.STATE_DIRECTORIES),
    }
)


@dataclass(frozen=True, slots=True)
class Seed:
    """A path below /var, with all below it.

    top: the absolute path.
    files: path of each file and symlink, relative to `top` ("" for `top` itself) -> digest of its content.
    shipped: those of the files that packages ship; scripts made the others.
    taken: file -> digest of the machine's own content, if scripts worked on that.
    """

    top: str
    files: Mapping[str, str] = field(default_factory=dict)
    shipped: frozenset[str] = frozenset()
    taken: Mapping[str, str] = field(default_factory=dict)

    def path(self, file: str) -> str:
        """Return the absolute path of one of the files."""
        return f"{self.top}/{file}" if file else self.top


#: Id -> seed. An id is never used again for another seed.
Seeds = Mapping[str, Seed]


@dataclass(frozen=True, slots=True)
class Given:
    """What a machine gets from another tree.

    place: ids of the new seeds.
    write: absolute path of a file of an earlier seed -> digests of which it must have one now; empty: must be
        absent.
    remove: absolute path of a file that is no longer in the tree -> digest that it must have.
    record: the seeds that the machine has been given afterwards.
    """

    place: tuple[str, ...] = ()
    write: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    remove: Mapping[str, str] = field(default_factory=dict)
    record: Seeds = field(default_factory=dict)


def parse(text: str) -> dict[str, Seed]:
    """Return the seeds of a manifest; AptOstreeError if it is invalid."""
    try:
        return {
            name: Seed(row["top"], dict(row["files"]), frozenset(row["shipped"]), dict(row.get("taken", {})))
            for name, row in json.loads(text).items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AptOstreeError(f"a manifest of seeds cannot be read: {error}") from error


def format_seeds(seeds: Seeds) -> str:
    """Return the text of a manifest."""
    rows = {
        name: {
            "top": seed.top,
            "files": dict(seed.files),
            "shipped": sorted(seed.shipped),
            "taken": dict(seed.taken),
        }
        for name, seed in seeds.items()
    }
    return json.dumps(rows, sort_keys=True, indent=0) + "\n"


def tops(paths: Iterable[str], before: Collection[str], seeds: Seeds) -> dict[str, str]:
    """Return path -> top of the seed that it belongs to, all relative to the root.

    This is the top of an earlier seed, or the topmost directory that is new and not shared.

    paths: files, or directories that have to be given whole.
    before: the paths that existed before the scripts ran.
    seeds: the seeds of the tree before.
    """
    earlier_tops = {seed.top.removeprefix("/") for seed in seeds.values()}
    chosen = {}
    for path in paths:
        lineage = _lineage(path)
        earlier = next((parent for parent in lineage if parent in earlier_tops), None)
        new = (parent for parent in lineage if parent not in before and parent not in SHARED)
        chosen[path] = earlier or next(new, path)
    return chosen


def give(tree: Seeds, given: Seeds) -> Given:
    """Return what a machine that was given some seeds gets from a tree."""
    write: dict[str, tuple[str, ...]] = {}
    remove: dict[str, str] = {}
    for name, old in given.items():
        new = tree.get(name)
        files = new.files if new else {}
        for file, digest in old.files.items():
            if file not in files and (new or file in old.shipped):  # state outlives its package
                remove[old.path(file)] = digest
        for file, digest in files.items():
            if old.files.get(file) != digest:
                bases = (old.files.get(file), new.taken.get(file) if new else None)
                write[old.path(file)] = tuple(base for base in bases if base)
    place = tuple(name for name in tree if name not in given)
    retired = {name: _without_shipped(seed) for name, seed in given.items() if name not in tree}
    return Given(place, write, remove, {**retired, **tree})


def _without_shipped(seed: Seed) -> Seed:
    """Return what stays of a seed without its package; its files must not come back with the package."""
    kept = {file: digest for file, digest in seed.files.items() if file not in seed.shipped}
    return Seed(seed.top, kept)


def _lineage(path: str) -> list[str]:
    """Return the path with its parents, the topmost first."""
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
