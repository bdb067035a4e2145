"""The origin of a deployment: the base that it follows, and the packages that the administrator requested.

The text is ostree's origin file (a GLib key file). `baserefspec` instead of `refspec` marks a layered
deployment, as in rpm-ostree, so that `ostree admin upgrade` does not silently drop the layered packages.
"""

from __future__ import annotations

import configparser
import io
import json
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from apt_ostree.errors import AptOstreeError, UsageError
from apt_ostree.model.package import Package

_GROUP = "packages"
#: The group and the key of rpm-ostree for what is tracked.
_TRACKED_GROUP, _TRACKED = "rpmostree", "initramfs-etc"
_UNCONFIGURED = "unconfigured-state"
#: The key of rpm-ostree for an image, and the one of its status for the image's digest.
_IMAGE, _DIGEST = "container-image-reference", "container-image-reference-digest"

#: A program and its arguments.
Command = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LocalPackage:
    """A package given as a .deb file, which is stored so that it can be layered again.

    sha256: checksum of the file.
    """

    sha256: str
    name: str
    version: str
    architecture: str

    @property
    def label(self) -> str:
        """Return NAME=VERSION."""
        return f"{self.name}={self.version}"


@dataclass(frozen=True, slots=True)
class Origin:
    """The base and the requests of a deployment.

    refspec: [REMOTE:]REF of the base, or empty if the base is a pinned commit.
    requested: package requests, each NAME or NAME=VERSION, sorted and unique.
    local: local packages.
    upgraded: the packages of the base are upgraded to the archives' newest versions.
    commands: commands that are run in each tree that is built on a base, in their order.
    removed: names of packages of the base that the deployment is not to have, sorted.
    recommends: name of a request and whether what it recommends comes with it, sorted; of others, apt's
        configuration says that.
    replacing: names of requests whose packages may replace files of others, sorted.
    overriding: names of requests that replace packages of the base, sorted; while the base has no such
        package, they are inactive.
    initramfs: further arguments of dracut, with which the machine makes its own initramfs; None: it has that
        of the base.
    initramfs_etc: paths below /etc that are also in the initramfs, sorted.
    image, image_digest: of the image that the base is of, if it is of one and not of a ref; see
        model.image_reference.
    unconfigured: why the base cannot be followed yet, such as a subscription that is missing (ostree's
        `unconfigured-state`).
    rest: the other groups of the file, unchanged.
    """

    refspec: str = ""
    requested: tuple[str, ...] = ()
    local: tuple[LocalPackage, ...] = ()
    upgraded: bool = False
    commands: tuple[Command, ...] = ()
    removed: tuple[str, ...] = ()
    recommends: tuple[tuple[str, bool], ...] = ()
    replacing: tuple[str, ...] = ()
    overriding: tuple[str, ...] = ()
    initramfs: tuple[str, ...] | None = None
    initramfs_etc: tuple[str, ...] = ()
    image: str = ""
    image_digest: str = ""
    unconfigured: str = ""
    rest: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = field(default=())

    @property
    def layered(self) -> bool:
        """Return whether the deployment's commit differs from its base commit."""
        changes = self.requested or self.local or self.upgraded or self.commands or self.removed
        return bool(changes) or self.changes_initramfs

    @property
    def changes_initramfs(self) -> bool:
        """Return whether the deployment's initramfs has what that of its base has not."""
        return self.initramfs is not None or bool(self.initramfs_etc)

    @property
    def remote(self) -> str | None:
        """Return the remote's name, or None for a local ref or a pinned commit."""
        remote, colon, _ref = self.refspec.rpartition(":")
        return remote if colon else None

    @property
    def names(self) -> frozenset[str]:
        """Return the names of all requested packages."""
        return frozenset(request_name(r) for r in self.requested) | {p.name for p in self.local}


def request_name(request: str) -> str:
    """Return the package name of a request (NAME or NAME=VERSION)."""
    return request.partition("=")[0]


def add_requests(
    origin: Origin,
    requests: tuple[str, ...],
    local: tuple[LocalPackage, ...],
    *,
    recommends: bool | None = None,
    replaces: bool = False,
    overrides: bool = False,
) -> Origin:
    """Return the origin with further requests; a new request replaces that for the same package.

    recommends: whether what they recommend comes with them; None: as apt is configured.
    replaces: whether they may replace files of other packages.
    overrides: whether they replace packages of the base.

    UsageError names packages that are removed from the base, which a new base could not have and lack.
    """
    names = {request_name(r) for r in requests} | {p.name for p in local}
    if removed := sorted(names & {*origin.removed}):
        raise UsageError(
            f"{', '.join(removed)} is removed from the base",
            hint=f"'apt-ostree override reset {' '.join(removed)}' brings it back",
        )
    kept = tuple(r for r in origin.requested if request_name(r) not in names)
    kept_local = tuple(p for p in origin.local if p.name not in names)
    chosen = {name: comes for name, comes in origin.recommends if name not in names}
    if recommends is not None:
        chosen |= dict.fromkeys(names, recommends)
    return replace(
        origin,
        requested=tuple(sorted({*kept, *requests})),
        local=tuple(sorted({*kept_local, *local}, key=lambda p: (p.name, p.version))),
        recommends=tuple(sorted(chosen.items())),
        replacing=tuple(sorted({*origin.replacing} - names | (names if replaces else set()))),
        overriding=tuple(sorted({*origin.overriding} - names | (names if overrides else set()))),
    )


def drop_requests(origin: Origin, names: frozenset[str]) -> Origin:
    """Return the origin without the requests for these packages."""
    return replace(
        origin,
        requested=tuple(r for r in origin.requested if request_name(r) not in names),
        local=tuple(p for p in origin.local if p.name not in names),
        recommends=tuple(row for row in origin.recommends if row[0] not in names),
        replacing=tuple(name for name in origin.replacing if name not in names),
        overriding=tuple(name for name in origin.overriding if name not in names),
    )


def active_requests(origin: Origin, base: Collection[str]) -> Origin:
    """Return the origin without the overrides that are inactive: those of packages that a base does not have.

    base: the names of the base's packages.
    """
    return drop_requests(origin, frozenset(origin.overriding) - frozenset(base))


def _named(origin: Origin, names: Sequence[str]) -> tuple[str, ...]:
    """Return names of packages for names, or for requests with a version as `status` shows them."""
    pinned = pinned_requests(origin)
    return tuple(request_name(name) if name in pinned else name for name in names)


def without_requests(origin: Origin, names: Sequence[str], *, idempotent: bool = False) -> Origin:
    """Return the origin without the requests for these packages.

    names: NAME or, as requested, NAME=VERSION. UsageError names packages that are not requested, unless
    `idempotent` is set.
    """
    names = _named(origin, names)
    requested = ", ".join(sorted(origin.names)) or "none"
    absent = {name: "is not requested" for name in names if name not in origin.names}
    _accept(absent, idempotent, hint=f"requested packages: {requested}")
    return drop_requests(origin, frozenset(names))


def new_requests(
    origin: Origin, requests: Sequence[str], base: Collection[str], *, idempotent: bool = False
) -> tuple[str, ...]:
    """Return the requests that are new, each once.

    UsageError names requests that change nothing, unless `idempotent` is set, and two for one package.

    base: the names of the base's packages, which need no request.
    """
    fresh: list[str] = []
    here: dict[str, str] = {}
    for request in dict.fromkeys(requests):
        same = [other for other in fresh if request_name(other) == request_name(request)]
        if same:
            raise UsageError(f"{same[0]!r} and {request!r} are requests for the same package")
        if request in origin.requested:
            here[request] = "is already requested"
        elif request in base:
            here[request] = "is already part of the base"
        else:
            fresh.append(request)
    _accept(here, idempotent, hint="add --idempotent to accept that")
    return tuple(fresh)


def new_local(
    local: Sequence[LocalPackage], base: Collection[Package], *, idempotent: bool = False
) -> tuple[LocalPackage, ...]:
    """Return the local packages that the base does not have in the same version.

    UsageError names those that it has, unless `idempotent` is set.

    base: the base's packages.
    """
    shipped = {f"{package.name}={package.version}" for package in base}
    here = {package.label: "is already part of the base" for package in local if package.label in shipped}
    _accept(here, idempotent, hint="add --idempotent to accept that")
    return tuple(package for package in local if package.label not in here)


def _accept(reasons: Mapping[str, str], idempotent: bool, *, hint: str) -> None:
    """Raise UsageError for requests that change nothing (name -> reason), unless `idempotent` is set."""
    if not reasons or idempotent:
        return
    lines = [f"package {name!r} {reason}" for name, reason in reasons.items()]
    if len(lines) == 1:
        raise UsageError(lines[0], hint=hint)
    raise UsageError(f"{len(lines)} requests change nothing: {', '.join(reasons)}", details=lines, hint=hint)


def added_requests(old: Origin, new: Origin) -> tuple[tuple[str, ...], tuple[LocalPackage, ...]]:
    """Return the requests and the local packages that are in a new origin but not in the old one."""
    return (
        tuple(request for request in new.requested if request not in old.requested),
        tuple(package for package in new.local if package not in old.local),
    )


def with_overrides(origin: Origin, remove: Sequence[str], base: Collection[str]) -> Origin:
    """Return the origin with packages of the base removed, whose requests are dropped.

    base: the names of the base's packages. UsageError names packages that it does not have.
    """
    others = [name for name in remove if name not in base]
    if others:
        raise UsageError(
            f"{', '.join(others)} is no package of the base",
            hint="'apt-ostree uninstall' removes layered packages",
        )
    dropped = drop_requests(origin, frozenset(remove))
    return replace(dropped, removed=tuple(sorted({*origin.removed, *remove})))


def without_overrides(origin: Origin, names: Sequence[str], base: Collection[str]) -> Origin:
    """Return the origin with the base's own versions of packages, which were removed or replaced.

    names: NAME or, as requested, NAME=VERSION. base: the names of the base's packages. UsageError names
    packages without an override.
    """
    names, overridden = _named(origin, names), overridden_names(origin, base)
    others = [name for name in names if name not in overridden]
    if others:
        listed = ", ".join(sorted(overridden)) or "none"
        raise UsageError(f"{', '.join(others)} has no override", hint=f"packages with one: {listed}")
    dropped = drop_requests(origin, frozenset(names) & overridden)
    return replace(dropped, removed=tuple(name for name in origin.removed if name not in names))


def without_layers(origin: Origin, base: Collection[str]) -> Origin:
    """Return the origin without layered packages; overrides of the base's packages stay.

    base: the names of the base's packages. A request without a version for one of them goes, too: it replaces
    nothing.
    """
    return drop_requests(origin, origin.names - overridden_names(origin, base))


def overridden_names(origin: Origin, base: Collection[str]) -> frozenset[str]:
    """Return the names of the base's packages that the deployment lacks or has in a requested version.

    Those of inactive overrides are among them.
    """
    versions = {request_name(request) for request in pinned_requests(origin)}
    return frozenset({*origin.removed, *origin.overriding}) | (versions & frozenset(base))


def add_command(origin: Origin, command: Command) -> Origin:
    """Return the origin with a command as its last one; it is there once."""
    return replace(origin, commands=(*(c for c in origin.commands if c != command), command))


def without_command(origin: Origin, command: Command) -> Origin:
    """Return the origin without a command; UsageError if it has none."""
    if command not in origin.commands:
        raise UsageError(
            f"the command {shlex.join(command)!r} was not run in this deployment or the ones before",
            hint="'apt-ostree status' lists the commands",
        )
    return replace(origin, commands=tuple(c for c in origin.commands if c != command))


def named_architectures(origin: Origin, architectures: Sequence[str]) -> tuple[str, ...]:
    """Return the architectures that a command of the origin names, such as one that adds them to dpkg."""
    given = {part for command in origin.commands for word in command for part in word.split()}
    return tuple(name for name in architectures if name in given)


def adds_recommended(
    origin: Origin, requests: Sequence[str], local: Sequence[LocalPackage], *, upgrade: bool
) -> bool | None:
    """Return whether a resolver adds what all packages recommend; None: as apt is configured.

    If it adds none, those of the requests that have them are added one by one. An upgrade adds none that are
    new if a request is without.

    requests, local: what is installed. upgrade: whether other packages are upgraded, too.
    """
    chosen = dict(origin.recommends)
    names = (*map(request_name, requests), *(package.name for package in local))
    choices = {chosen.get(name) for name in names}
    if len(choices) == 1 and not upgrade:
        return choices.pop()
    return None if all(chosen.values()) else False


def pinned_requests(origin: Origin) -> tuple[str, ...]:
    """Return the requests with a version, and those for the versions of local packages."""
    pinned = (request for request in origin.requested if "=" in request)
    return (*pinned, *(package.label for package in origin.local))


def yielding_requests(origin: Origin, held: Collection[str]) -> frozenset[str]:
    """Return the requests with a version whose packages are not on hold.

    held: names of packages on hold, with an architecture if it is not "all".
    """
    names = {*held, *(name.partition(":")[0] for name in held)}
    pinned = {request: request_name(request) for request in origin.requested if "=" in request}
    return frozenset(
        request
        for request, name in pinned.items()
        if name not in names and name.partition(":")[0] not in held
    )


def parse_origin(text: str) -> Origin:
    """Read the text of an origin file; AptOstreeError if it is invalid."""
    parser = _parser()
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise AptOstreeError(f"a deployment's origin file cannot be read: {error.message}") from error
    section = parser["origin"] if parser.has_section("origin") else {}
    packages = parser[_GROUP] if parser.has_section(_GROUP) else {}
    tracked = parser[_TRACKED_GROUP].get(_TRACKED, "") if parser.has_section(_TRACKED_GROUP) else ""
    return Origin(
        refspec=section.get("baserefspec") or section.get("refspec", ""),
        image=section.get(_IMAGE, ""),
        image_digest=section.get(_DIGEST, ""),
        unconfigured=section.get(_UNCONFIGURED, ""),
        requested=_split(packages.get("requested", "")),
        local=tuple(
            LocalPackage(*fields)
            for item in _split(packages.get("requested-local", ""))
            if len(fields := item.split("|")) == 4
        ),
        upgraded=packages.get("upgraded", "") == "true",
        commands=_read_commands(packages.get("commands", "[]")),
        removed=_split(packages.get("removed", "")),
        recommends=tuple(map(_read_recommends, _split(packages.get("recommends", "")))),
        replacing=_split(packages.get("replacing", "")),
        overriding=_split(packages.get("overriding", "")),
        initramfs=_read_arguments(packages["initramfs"]) if "initramfs" in packages else None,
        initramfs_etc=_split(tracked),
        rest=tuple(_other_groups(parser)),
    )


def _other_groups(parser: configparser.ConfigParser) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    """Yield the groups and keys that stay as they are."""
    for name in parser.sections():
        items = tuple(item for item in parser[name].items() if (name, item[0]) != (_TRACKED_GROUP, _TRACKED))
        if name not in ("origin", _GROUP) and (items or not parser.has_option(name, _TRACKED)):
            yield name, items


def format_origin(origin: Origin) -> str:
    """Return the text of an origin file."""
    parser = _parser()
    of_image = {_IMAGE: origin.image, _DIGEST: origin.image_digest} if origin.image else None
    parser["origin"] = of_image or {"baserefspec" if origin.layered else "refspec": origin.refspec}
    if origin.unconfigured:
        parser["origin"][_UNCONFIGURED] = origin.unconfigured
    if origin.layered:
        fields = ["|".join((p.sha256, p.name, p.version, p.architecture)) for p in origin.local]
        parser[_GROUP] = {
            "requested": _join(origin.requested),
            "requested-local": _join(fields),
            "upgraded": str(origin.upgraded).lower(),
        }
    if origin.commands:
        parser[_GROUP]["commands"] = json.dumps(origin.commands)
    if origin.removed:
        parser[_GROUP]["removed"] = _join(origin.removed)
    if origin.recommends:
        rows = [f"{name}|{str(comes).lower()}" for name, comes in origin.recommends]
        parser[_GROUP]["recommends"] = _join(rows)
    if origin.replacing:
        parser[_GROUP]["replacing"] = _join(origin.replacing)
    if origin.overriding:
        parser[_GROUP]["overriding"] = _join(origin.overriding)
    if origin.initramfs is not None:
        parser[_GROUP]["initramfs"] = json.dumps(origin.initramfs)
    for name, items in origin.rest:
        parser[name] = dict(items)
    if origin.initramfs_etc:
        if not parser.has_section(_TRACKED_GROUP):
            parser.add_section(_TRACKED_GROUP)
        parser[_TRACKED_GROUP][_TRACKED] = _join(origin.initramfs_etc)
    out = io.StringIO()
    parser.write(out, space_around_delimiters=False)
    return out.getvalue()


def _parser() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(
        interpolation=None, delimiters=("=",), comment_prefixes=("#",), strict=False
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # key files keep their case
    return parser


def _read_commands(text: str) -> tuple[Command, ...]:
    return tuple(tuple(map(str, command)) for command in _read_json(text, "commands"))


def _read_recommends(text: str) -> tuple[str, bool]:
    name, _, comes = text.partition("|")
    return name, comes == "true"


def _read_arguments(text: str) -> tuple[str, ...]:
    return tuple(map(str, _read_json(text, "initramfs arguments")))


def _read_json(text: str, what: str) -> list[Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise AptOstreeError(f"the {what} in a deployment's origin file cannot be read: {error}") from error
    if not isinstance(value, list):
        raise AptOstreeError(f"the {what} in a deployment's origin file are no list")
    return value


def _split(text: str) -> tuple[str, ...]:
    return tuple(item for item in text.split(";") if item)


def _join(items: tuple[str, ...] | list[str]) -> str:
    return "".join(f"{item};" for item in items)
