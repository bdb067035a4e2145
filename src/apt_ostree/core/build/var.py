"""Describes the /var of a root: tmpfiles.d lines for directories, seeds for what holds files."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from apt_ostree.model import accounts, layout, seeds, tmpfiles
from apt_ostree.model.seeds import Seed, Seeds
from apt_ostree.model.tmpfiles import Entry, Treatment
from apt_ostree.system import dpkg_query, files, var_state
from apt_ostree.system.confined import RunInRoot

#: Where links into the tree are, which have to exist at every boot (core.build.finish.place_opt).
_OPT = "var/opt"

#: The names of users, and of groups, by their ids.
_Names = tuple[dict[int, str], dict[int, str]]


def describe(
    root: Path,
    before: Collection[str],
    new_id: Callable[[str], str],
    run_in_root: RunInRoot,
    taken: Mapping[str, str],
) -> None:
    """Describe what is below /var: each directory by a tmpfiles.d line, all else as seeds.

    before: paths (`var/lib/foo`) that existed before the scripts ran.
    new_id: returns the id of a new seed by its path.
    taken: path of a file of the machine that the scripts worked on -> digest of its content before.
    """
    files.write_text(root / layout.TMPFILES_LAYOUT, tmpfiles.layout_text())
    own_conf = root / layout.TMPFILES_VAR
    old_text = files.text_of(own_conf)
    old_seeds = seeds.parse(files.text_of(root / layout.SEEDS) or "{}")
    before = frozenset(before) - tmpfiles.copied(old_text)  # an older apt-ostree described files, too
    shipped = cache(lambda: dpkg_query.listed(root / layout.DPKG_ADMINDIR, "/var/"))
    paths = list(_walk(root, "var"))
    new_seeds = {
        name: replace(
            seed, taken={file: taken[path] for file in seed.files if (path := seed.path(file)) in taken}
        )
        for name, seed in _seeds(root, paths, before, old_seeds, new_id=new_id, shipped=shipped).items()
    }
    _copy(root, old_seeds, new_seeds, run_in_root)
    whole = tuple(f"{seed.top}/" for seed in new_seeds.values())
    owners = _names(root)
    declared = _declared_elsewhere(root) | {f"/{path}" for path in before}
    within = _within_seeds(paths, whole, shipped)
    entries = [
        _entry(root, path, info, owners)
        for path, info in paths
        if f"/{path}" not in declared and f"/{path}" not in within and _is_declared(path, info)
    ]
    exists = {f"/{path}" for path, info in paths if _is_declared(path, info)}

    def gone(path: str) -> bool:
        return path not in exists or path in within

    files.write_text(own_conf, tmpfiles.merge(old_text, entries, gone=gone))
    if new_seeds or old_seeds:
        files.write_text(root / layout.SEEDS, seeds.format_seeds(new_seeds))


# --- directories


def _walk(root: Path, top: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the paths below `top` that belong to the state, parents first."""
    for entry in sorted(os.scandir(root / top), key=lambda entry: entry.name):
        path = f"{top}/{entry.name}"
        treatment = tmpfiles.treatment(path)
        if treatment is Treatment.SKIP:
            continue
        info = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            yield path, info
            yield from _walk(root, path)
        elif treatment is Treatment.KEEP and (stat.S_ISREG(info.st_mode) or entry.is_symlink()):
            yield path, info


def _within_seeds(
    paths: Sequence[tuple[str, os.stat_result]],
    whole: tuple[str, ...],
    shipped: Callable[[], frozenset[str]],
) -> frozenset[str]:
    """Return the paths that the machine gets with a seed, and at no later boot.

    A directory that a package ships there is needed as one anywhere else: a seed of before may lack it.

    whole: the tops of the seeds, each with a slash at its end.
    shipped: returns the paths below /var that packages ship.
    """
    owners = {path: info.st_uid for path, info in paths}
    return frozenset(
        f"/{path}"
        for path, info in paths
        if f"/{path}".startswith(whole)
        and (f"/{path}" not in shipped() or not stat.S_ISDIR(info.st_mode) or _is_unsafe(path, owners))
    )


def _is_declared(path: str, info: os.stat_result) -> bool:
    return stat.S_ISDIR(info.st_mode) or str(Path(path).parent) == _OPT


def _declared_elsewhere(root: Path) -> frozenset[str]:
    """Return the paths that other tmpfiles.d files of the tree create."""
    declared: set[str] = set()
    for conf in sorted((root / "usr/lib/tmpfiles.d").glob("*.conf")):
        if conf != root / layout.TMPFILES_VAR:
            declared |= tmpfiles.described(conf.read_text(errors="replace"))
    return frozenset(declared)


def _entry(root: Path, path: str, info: os.stat_result, names: _Names) -> Entry:
    if stat.S_ISLNK(info.st_mode):
        return Entry("L", f"/{path}", argument=str((root / path).readlink()))
    # With a colon, systemd-tmpfiles applies them to what it creates; later they are the machine's.
    users, groups = names
    owner = (users.get(info.st_uid, str(info.st_uid)), groups.get(info.st_gid, str(info.st_gid)))
    user, group = tmpfiles.OWNERS.get(path, owner)
    return Entry("d", f"/{path}", f":{stat.S_IMODE(info.st_mode):04o}", f":{user}", f":{group}")


def _names(root: Path) -> _Names:
    users = accounts.parse_passwd(files.text_of(root / "etc/passwd"))
    groups = accounts.parse_group(files.text_of(root / "etc/group"))
    return ({user.uid: user.name for user in users}, {group.gid: group.name for group in groups})


# --- seeds


def _seeds(
    root: Path,
    paths: Sequence[tuple[str, os.stat_result]],
    before: Collection[str],
    old: Seeds,
    *,
    new_id: Callable[[str], str],
    shipped: Callable[[], frozenset[str]],
) -> dict[str, Seed]:
    """Return the seeds of the tree."""
    owners = {path: info.st_uid for path, info in paths}
    fresh = [
        path
        for path, info in paths
        if path not in before and (not _is_declared(path, info) or _is_unsafe(path, owners))
    ]
    ids = {seed.top.removeprefix("/"): name for name, seed in old.items()}
    tops = {top for top in ids if os.path.lexists(root / top)} | set(seeds.tops(fresh, before, old).values())
    result = {}
    for top in sorted(tops):
        seed = Seed(f"/{top}", _digests(root, top))
        own = frozenset(file for file in seed.files if seed.path(file) in shipped())
        result[ids.get(top) or new_id(seed.top)] = Seed(seed.top, seed.files, own)
    return result


def _is_unsafe(path: str, owners: Mapping[str, int]) -> bool:
    """Return whether systemd-tmpfiles would refuse a line: a user owns the parent, another one the path."""
    parent = owners.get(str(Path(path).parent), 0)
    return parent != 0 and owners[path] != parent


def _digests(root: Path, top: str) -> dict[str, str]:
    return {
        file: digest
        for file, digest in var_state.files_below(root / top).items()
        if tmpfiles.treatment(f"{top}/{file}" if file else top) is Treatment.KEEP
    }


def _copy(root: Path, old: Seeds, new: Seeds, run_in_root: RunInRoot) -> None:
    """Bring the tree's copies of seeds up to date; one that did not change is not touched."""
    factory = root / layout.FACTORY
    tops = {seed.top.removeprefix("/") for seed in new.values()}
    for seed in old.values():
        if seed.top.removeprefix("/") not in tops:
            files.remove_all(factory / seed.top.removeprefix("/"))
    changed = [
        seed.top.removeprefix("/")
        for name, seed in new.items()
        if name not in old or old[name].files != seed.files or not _same_metadata(root, factory, seed)
    ]
    if not changed:
        return
    for top in changed:
        files.remove_all(factory / top)
    factory.mkdir(parents=True, exist_ok=True)
    # cp keeps owners, capabilities and hard links, which shutil does not.
    command = ["cp", "--archive", "--parents", f"--target-directory=/{layout.FACTORY}", "--", *changed]
    run_in_root(command, "keep the state of packages for the machine")
    for seed in new.values():
        _remove_others(factory, seed)


def _same_metadata(root: Path, factory: Path, seed: Seed) -> bool:
    top = seed.top.removeprefix("/")
    return _metadata(root / top, seed) == _metadata(factory / top, seed)


def _metadata(top: Path, seed: Seed) -> dict[str, tuple[int, int, int]]:
    """Return mode and owner of the directories and the seed's files at and below a path."""
    directories = [
        str(path.relative_to(top)) for path in top.rglob("*") if path.is_dir() and not path.is_symlink()
    ]
    infos = {
        name: os.lstat(top / name) for name in (".", *directories, *seed.files) if os.path.lexists(top / name)
    }
    return {name: (info.st_mode, info.st_uid, info.st_gid) for name, info in infos.items()}


def _remove_others(factory: Path, seed: Seed) -> None:
    """Remove what is no state from the copy of a seed: locks, backups, sockets."""
    top = factory / seed.top.removeprefix("/")
    for path in sorted(top.rglob("*")):
        is_directory = path.is_dir() and not path.is_symlink()
        if not is_directory and str(path.relative_to(top)) not in seed.files:
            path.unlink()
