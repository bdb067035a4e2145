"""Parses treefiles: plain values in, frozen dataclasses out; errors name the file, the line and the key.

Values only: `system.yamlfile` reads YAML, `core.compose.inputs` resolves `include` and reads scripts.
The format is documented in docs/treefile.md.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from apt_ostree.errors import UsageError
from apt_ostree.model.document import Check, KeyPath, Section, Source

GUIDE = "docs/treefile.md lists the keys"
#: Values of account-ids besides a file: the ids of the ref's last commit, or those of this compose alone.
PARENT_IDS, NO_IDS = "parent", "none"
#: dpkg's names of Debian's architectures, for the keys packages-NAME.
ARCHITECTURES = ("amd64", "arm64", "armhf", "i386", "ppc64el", "riscv64", "s390x")
VARIANTS = ("essential", "apt", "minbase", "buildd", "important", "standard")

_T = TypeVar("_T")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?([=/][A-Za-z0-9.+~:-]+)?")
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_SUITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+\.(service|socket|target|timer|path|mount|automount|swap|slice)")
_TARGET = re.compile(r"[A-Za-z0-9:_.\\@-]+\.target")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_MODE = re.compile(r"0?[0-7]{3,4}")
_URI = re.compile(r"[a-z][a-z0-9+.-]*:/\S+")


@dataclass(frozen=True, slots=True)
class Archive:
    """One suite of one archive.

    mirror: None is mmdebstrap's default for the suite.
    signed_by: the keyring as written.
    keyring: the path of signed_by, resolved against the directory of the treefile.
    trusted: accept the archive without a signature.
    """

    suite: str
    components: tuple[str, ...] = ("main",)
    mirror: str | None = None
    signed_by: str | None = None
    keyring: str | None = None
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class AddFile:
    """A file or directory to copy into the tree.

    src: as written.
    dest: the absolute path in the tree.
    path: src, resolved against the directory of the treefile.
    mode: None keeps that of the source.
    """

    src: str
    dest: str
    path: str
    mode: int | None = None


@dataclass(frozen=True, slots=True)
class Script:
    """A script to run in the tree: a text or a file.

    inline: the text.
    file: as written.
    path: of the file, resolved against the directory of the treefile.
    """

    inline: str | None = None
    file: str | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Units:
    """Units to enable, disable and mask, in this order."""

    enable: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()
    mask: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dracut:
    """Options for the initramfs.

    add_modules: modules of dracut in addition to `ostree`.
    omit_modules: modules to leave out.
    arguments: further arguments of dracut(8).
    """

    add_modules: tuple[str, ...] = ()
    omit_modules: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MachineState:
    """What packages make for one machine.

    path: pattern of absolute paths.
    package: its configure step makes it on each machine, and the tree does not have it.
    shared: the tree has it, and all machines have the same.
    """

    path: str
    package: str | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Treefile:
    """A treefile, or several merged ones; see docs/treefile.md for the fields.

    include: resolved paths; empty after a merge.
    packages_of: (architecture, package) of packages that are for one architecture.
    account_ids: PARENT_IDS, NO_IDS, or the path of a file as written.
    ids_file: that path, resolved against the directory of the treefile.
    metadata: values of JSON; those that are written in treefiles are strings.
    """

    include: tuple[str, ...] = ()
    ref: str | None = None
    suite: str | None = None
    components: tuple[str, ...] = ()
    archives: tuple[Archive, ...] = ()
    check_valid_until: bool | None = None
    variant: str | None = None
    recommends: bool | None = None
    packages: tuple[str, ...] = ()
    add_files: tuple[AddFile, ...] = ()
    units: Units = Units()
    postprocess: tuple[Script, ...] = ()
    packages_of: tuple[tuple[str, str], ...] = ()
    exclude_packages: tuple[str, ...] = ()
    documentation: bool | None = None
    remove_files: tuple[str, ...] = ()
    default_target: str | None = None
    machine_state: tuple[MachineState, ...] = ()
    account_ids: str | None = None
    ids_file: str | None = None
    kernel_arguments: tuple[str, ...] = ()
    dracut: Dracut = Dracut()
    version: str | None = None
    metadata: tuple[tuple[str, Any], ...] = ()


def parse(data: Any, *, name: str, lines: Mapping[KeyPath, int]) -> Treefile:
    """Return the treefile of one document; UsageError names a mistake.

    name: of the file; paths are resolved against its directory.
    lines: the line number of each key.
    """
    top = Section(data, (), Source(name, lines, GUIDE))
    resolve = _resolver(posixpath.dirname(name))
    account_ids = top.string("account-ids")
    tree = Treefile(
        include=tuple(resolve(item) for item in top.strings("include", single=True)),
        ref=top.string("ref", _matching(_REF, "a ref such as debian/13/${arch}/server", variables=True)),
        suite=top.string("suite", _matching(_SUITE, "the name of a suite, such as trixie")),
        components=top.strings("components", _matching(_WORD, "a component, such as main")),
        archives=archives(top, name),
        check_valid_until=top.boolean("check-valid-until"),
        variant=top.string("variant", one_of(VARIANTS)),
        recommends=top.boolean("recommends"),
        packages=top.strings("packages", a_package),
        packages_of=tuple(
            (architecture, name)
            for architecture in ARCHITECTURES
            for name in top.strings(f"packages-{architecture}", a_package)
        ),
        exclude_packages=top.strings("exclude-packages", _matching(_NAME, "the name of a package")),
        documentation=top.boolean("documentation"),
        remove_files=top.strings("remove-files", _tree_path),
        default_target=top.string(
            "default-target", _matching(_TARGET, "the full name of a target, such as graphical.target")
        ),
        add_files=tuple(_add_file(item, resolve) for item in top.mappings("add-files")),
        units=_units(top),
        postprocess=_scripts(top, resolve),
        machine_state=tuple(map(_machine_state, top.mappings("machine-state"))),
        account_ids=account_ids,
        ids_file=resolve(account_ids) if account_ids not in (None, PARENT_IDS, NO_IDS) else None,
        kernel_arguments=top.strings("kernel-arguments", _matching(re.compile(r"\S+"), "one argument")),
        dracut=_dracut(top.mapping("dracut")),
        version=top.string("version"),
        metadata=tuple(sorted(top.mapping("metadata").all_strings())),
    )
    top.refuse_the_rest()
    return tree


def merge(base: Treefile, over: Treefile) -> Treefile:
    """Return a treefile merged with the one that includes it (`over`).

    Lists are joined without duplicates, mappings are merged by key, single values are replaced. `components`
    and `archives` are replaced, so that a file can select other archives than the one that it includes.
    """
    return replace(
        base,
        include=(),
        ref=over.ref or base.ref,
        suite=over.suite or base.suite,
        components=over.components or base.components,
        archives=over.archives or base.archives,
        check_valid_until=_first(over.check_valid_until, base.check_valid_until),
        variant=over.variant or base.variant,
        recommends=_first(over.recommends, base.recommends),
        packages=_join(base.packages, over.packages),
        packages_of=_join(base.packages_of, over.packages_of),
        exclude_packages=_join(base.exclude_packages, over.exclude_packages),
        documentation=_first(over.documentation, base.documentation),
        remove_files=_join(base.remove_files, over.remove_files),
        default_target=over.default_target or base.default_target,
        add_files=_join(base.add_files, over.add_files),
        units=_merge_lists(base.units, over.units),
        postprocess=base.postprocess + over.postprocess,
        machine_state=_join(base.machine_state, over.machine_state),
        account_ids=over.account_ids or base.account_ids,
        ids_file=over.ids_file if over.account_ids else base.ids_file,
        kernel_arguments=_join(base.kernel_arguments, over.kernel_arguments),
        dracut=_merge_lists(base.dracut, over.dracut),
        version=over.version or base.version,
        metadata=tuple(sorted({**dict(base.metadata), **dict(over.metadata)}.items())),
    )


def for_architecture(tree: Treefile, architecture: str) -> Treefile:
    """Return a treefile with the packages that it has for one architecture among all others."""
    own = tuple(name for of, name in tree.packages_of if of == architecture)
    return replace(tree, packages=_join(tree.packages, own), packages_of=())


def _of(tree: Treefile, architecture: str) -> list[str]:
    return sorted(name for of, name in tree.packages_of if of == architecture)


def check_complete(tree: Treefile, *, name: str) -> None:
    """Raise UsageError for a merged treefile without required keys, or with a contradiction."""
    if both := sorted({*tree.packages} & {*tree.exclude_packages}):
        raise UsageError(f"{name}: packages and exclude-packages both have {', '.join(both)}", hint=GUIDE)
    for key, value in (("ref", tree.ref), ("suite", tree.suite)):
        if not value:
            raise UsageError(
                f"{name}: {key}: expected a value here or in an included file",
                hint=GUIDE,
            )


def to_json(tree: Treefile) -> dict[str, Any]:
    """Return a treefile as plain values with its documented keys, without keys that are not set."""
    units, dracut = _plain(tree.units), _plain(tree.dracut)
    result: dict[str, Any] = {
        "ref": tree.ref,
        "suite": tree.suite,
        "components": list(tree.components),
        "archives": [_plain(replace(item, keyring=None)) for item in tree.archives],
        "check-valid-until": tree.check_valid_until,
        "variant": tree.variant,
        "recommends": tree.recommends,
        "packages": sorted(tree.packages),
        **{f"packages-{name}": _of(tree, name) for name in ARCHITECTURES},
        "exclude-packages": list(tree.exclude_packages),
        "documentation": tree.documentation,
        "remove-files": list(tree.remove_files),
        "default-target": tree.default_target,
        "add-files": [_plain(replace(item, path="")) for item in tree.add_files],
        "units": units,
        "postprocess": [_plain(replace(item, path=None)) for item in tree.postprocess],
        "machine-state": [_plain(item) for item in tree.machine_state],
        "account-ids": tree.account_ids,
        "kernel-arguments": list(tree.kernel_arguments),
        "dracut": dracut,
        "version": tree.version,
        "metadata": dict(tree.metadata),
    }
    return {key: value for key, value in result.items() if value not in (None, [], {})}


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Return a text with each `${name}` replaced by its value; unknown names are not replaced."""
    return re.sub(r"\$\{(\w+)\}", lambda match: variables.get(match[1], match[0]), text)


# --- the parts of a treefile


def archives(top: Section, name: str) -> tuple[Archive, ...]:
    """Return the archives of a document; UsageError names a mistake. name: of the file."""
    resolve = _resolver(posixpath.dirname(name))
    return tuple(_archive(item, resolve) for item in top.mappings("archives"))


def _archive(entry: Section, resolve: Callable[[str], str]) -> Archive:
    signed_by = entry.string("signed-by")
    archive = Archive(
        suite=entry.required("suite", _matching(_SUITE, "the name of a suite, such as trixie-security")),
        components=entry.strings("components", _matching(_WORD, "a component, such as main")) or ("main",),
        mirror=entry.string("mirror", _matching(_URI, "a URI")),
        signed_by=signed_by,
        keyring=resolve(signed_by) if signed_by else None,
        trusted=bool(entry.boolean("trusted")),
    )
    entry.refuse_the_rest()
    if archive.mirror is None and (archive.signed_by or archive.trusted):
        entry.fail((), "a mirror beside signed-by or trusted", "none")
    return archive


def _add_file(entry: Section, resolve: Callable[[str], str]) -> AddFile:
    src = entry.required("src")
    dest = entry.required("dest", _tree_path)
    mode = entry.string("mode", _matching(_MODE, 'an octal mode in quotes, such as "0644"'))
    entry.refuse_the_rest()
    return AddFile(src, dest, resolve(src), int(mode, 8) if mode else None)


def _units(top: Section) -> Units:
    """Return the units; a list names those to enable, as in rpm-ostree's treefiles."""
    unit = _matching(_UNIT, "the full name of a unit, such as ssh.service")
    if isinstance(top.peek("units"), list):
        return Units(enable=top.strings("units", unit))
    entry = top.mapping("units")
    units = Units(*(entry.strings(key, unit) for key in ("enable", "disable", "mask")))
    entry.refuse_the_rest()
    return units


def _dracut(entry: Section) -> Dracut:
    module = _matching(_WORD, "the name of a dracut module")
    dracut = Dracut(
        add_modules=entry.strings("add-modules", module),
        omit_modules=entry.strings("omit-modules", module),
        arguments=entry.strings("arguments"),
    )
    entry.refuse_the_rest()
    return dracut


def _scripts(top: Section, resolve: Callable[[str], str]) -> tuple[Script, ...]:
    if isinstance(top.peek("postprocess"), str):
        return (Script(inline=top.required("postprocess")),)
    scripts = []
    for entry in top.mappings("postprocess"):
        inline, file = entry.string("inline"), entry.string("file")
        entry.refuse_the_rest()
        if (inline is None) == (file is None):
            entry.fail((), "either inline or file", "both" if inline else "neither")
        scripts.append(Script(inline, file, resolve(file) if file else None))
    return tuple(scripts)


def _machine_state(entry: Section) -> MachineState:
    name = _matching(_NAME, "the name of a package")
    item = MachineState(
        entry.required("path", _tree_path), entry.string("package", name), bool(entry.boolean("shared"))
    )
    entry.refuse_the_rest()
    if (item.package is None) != item.shared:
        entry.fail((), "either package or shared: true", "both" if item.shared else "neither")
    return item


# --- small tools


def _matching(pattern: re.Pattern[str], expected: str, *, variables: bool = False) -> Check:
    def check(value: str) -> str | None:
        plain = expand(value, {"arch": "x", "date": "0"}) if variables else value
        return None if pattern.fullmatch(plain) else expected

    return check


def a_package(value: str) -> str | None:
    """Return what is expected instead of a text that is no package."""
    return None if _PACKAGE.fullmatch(value) else "a package: NAME, NAME=VERSION or NAME/SUITE"


def one_of(values: Sequence[str]) -> Check:
    """Return a check that a string is one of some values."""
    return lambda value: None if value in values else "one of " + ", ".join(values)


def _tree_path(value: str) -> str | None:
    clean = value.startswith("/") and posixpath.normpath(value) == value.rstrip("/")
    return None if clean and ".." not in value.split("/") else "an absolute path inside the tree"


def _resolver(directory: str) -> Callable[[str], str]:
    return lambda path: posixpath.normpath(posixpath.join(directory, path))


def _join(first: tuple[_T, ...], second: tuple[_T, ...]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(first + second))


def _first(one: bool | None, other: bool | None) -> bool | None:
    return other if one is None else one


_Lists = TypeVar("_Lists", Units, Dracut)


def _merge_lists(base: _Lists, over: _Lists) -> _Lists:
    changes = {
        field.name: _join(getattr(base, field.name), getattr(over, field.name)) for field in fields(base)
    }
    return replace(base, **changes)


def _plain(value: Any) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for field in fields(value):
        item = getattr(value, field.name)
        if item in (None, "", (), False):
            continue
        if field.name == "mode":
            item = f"{item:04o}"
        result[field.name.replace("_", "-")] = list(item) if isinstance(item, tuple) else item
    return result
