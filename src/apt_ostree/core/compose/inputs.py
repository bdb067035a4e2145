"""What a compose is made from: the treefile with its includes, the archives, and what identifies them all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from apt_ostree import __version__
from apt_ostree.core.compose import rootfs
from apt_ostree.errors import UsageError
from apt_ostree.model import commit_metadata, layout, release
from apt_ostree.model import treefile as treefiles
from apt_ostree.model.package import Package
from apt_ostree.model.requests.compose import OfCommit
from apt_ostree.model.treefile import Treefile
from apt_ostree.system import mmdebstrap, yamlfile
from apt_ostree.system.mmdebstrap import Bootstrap

# --- the treefile


def read_treefile(
    path: str,
    *,
    ref: str | None = None,
    version: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Treefile:
    """Return a whole treefile; what the request gives wins. UsageError names a mistake."""
    tree = load_treefile(Path(path))
    merged = tuple(sorted({**dict(tree.metadata), **(metadata or {})}.items()))
    tree = replace(tree, ref=ref or tree.ref, version=version or tree.version, metadata=merged)
    tree = treefiles.for_architecture(tree, mmdebstrap.native_architecture()) if tree.packages_of else tree
    treefiles.check_complete(tree, name=path)
    return tree


def treefile_of_commit(path: str, request: OfCommit) -> Treefile:
    """Return a whole treefile with what a request says of the commit; UsageError names a mistake.

    A version among the metadata is the commit's, as with rpm-ostree.
    """
    metadata: dict[str, Any] = {}
    for file in request.metadata_files:
        try:
            text = Path(file).read_text()
        except (OSError, ValueError) as error:
            raise UsageError(f"the metadata of {file} cannot be read: {error}") from error
        metadata |= commit_metadata.parse(text, name=file)
    metadata |= request.metadata
    of_metadata = metadata.pop(layout.META_VERSION, None)
    version = request.version or of_metadata
    return read_treefile(path, ref=request.ref, version=version, metadata=metadata)


def load_treefile(path: Path, seen: tuple[Path, ...] = ()) -> Treefile:
    """Return a treefile, merged with its includes; paths are relative to the file that names them.

    seen: the files that include this one.

    Raises UsageError for an error in a file.
    """
    real = path.resolve()
    if real in seen:
        raise UsageError(f"{seen[-1]}: include: {path} includes itself")
    document = yamlfile.read(path)
    own = treefiles.parse(document.data, name=document.name, lines=document.lines)
    _check_files(own, path)
    base = Treefile()
    for name in own.include:
        base = treefiles.merge(base, load_treefile(Path(name), (*seen, real)))
    return treefiles.merge(base, own)


def _check_files(tree: Treefile, path: Path) -> None:
    named = [(f"add-files[{n}].src", item.path) for n, item in enumerate(tree.add_files)]
    named += [(f"postprocess[{n}].file", item.path) for n, item in enumerate(tree.postprocess) if item.path]
    named += [
        (f"archives[{n}].signed-by", item.keyring) for n, item in enumerate(tree.archives) if item.keyring
    ]
    named += [("account-ids", tree.ids_file)] if tree.ids_file else []
    for key, file in named:
        if not Path(file).exists():
            raise UsageError(
                f"{path}: {key}: expected an existing file, got {file}",
                hint="paths are relative to the directory of the treefile that names them",
            )


# --- the archives


def plan_bootstrap(tree: Treefile, locked: Mapping[str, str]) -> Bootstrap:
    """Return the root directory to make. locked: the versions to take, by package."""
    return Bootstrap(
        suite=tree.suite or "",
        variant=tree.variant or "minbase",
        sources=_choose_sources(tree),
        packages=tree.packages,
        recommends=bool(tree.recommends),
        check_valid_until=tree.check_valid_until is not False,
        documentation=tree.documentation is not False,
        locked=locked,
    )


def _choose_sources(tree: Treefile) -> tuple[str, ...]:
    """Return sources.list(5) lines; archives without a mirror get the defaults of mmdebstrap."""
    defaults: dict[str, release.Source] = {}
    if not tree.archives or any(archive.mirror is None for archive in tree.archives):
        lines = mmdebstrap.default_sources(tree.suite or "", tree.components or ("main",))
        sources = (release.parse_source(line) for line in lines)
        defaults = {source.suite: source for source in sources if source}
    chosen = []
    for number, archive in enumerate(tree.archives):
        if archive.mirror is not None:
            options = ["trusted=yes"] if archive.trusted else []
            options += [f"signed-by={Path(archive.keyring).absolute()}"] if archive.keyring else []
            chosen.append(
                release.Source(" ".join(options), archive.mirror, archive.suite, archive.components)
            )
        elif archive.suite in defaults:
            chosen.append(replace(defaults[archive.suite], components=archive.components))
        else:
            raise UsageError(
                f"archives[{number}].suite: expected one of {', '.join(defaults)}, got {archive.suite!r}",
                hint="only these have a default mirror; name one with the key mirror",
            )
    return tuple(release.source_line(source) for source in chosen or defaults.values())


# --- what identifies them


def inputs_digest(tree: Treefile, packages: Sequence[Package]) -> str:
    """Return a digest of all inputs of a compose; equal digests mean equal trees.

    packages: the packages that a simulation lists; one or two fewer may be installed in the end.
    """
    facts = {
        "program": __version__,
        "treefile": treefiles.to_json(tree),
        "files": rootfs.fingerprint_inputs(tree),
        "packages": [[item.name, item.version, item.architecture] for item in packages],
    }
    return digest_of(facts)


def installed_digest(tree: Treefile) -> str:
    """Return a digest of what a treefile says of the packages alone."""
    parts = Treefile(
        suite=tree.suite,
        components=tree.components,
        archives=tree.archives,
        check_valid_until=tree.check_valid_until,
        variant=tree.variant,
        recommends=tree.recommends,
        documentation=tree.documentation,
        packages=tree.packages,
    )
    return inputs_digest(parts, ())


def applied_digest(tree: Treefile) -> str:
    """Return a digest of what a treefile makes of the packages, without what it says of the commit."""
    return inputs_digest(replace(tree, ref=None, version=None, metadata=()), ())


def digest_of(facts: Any) -> str:
    """Return the SHA-256 of plain values."""
    return hashlib.sha256(canonical(facts).encode()).hexdigest()


def canonical(value: Any) -> str:
    """Return plain values as JSON, equal ones as equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
