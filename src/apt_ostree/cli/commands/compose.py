"""`apt-ostree compose`: composes trees, on any machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from apt_ostree.cli import options, render
from apt_ostree.cli.commands.compose_disk import disk
from apt_ostree.cli.commands.compose_image import container_encapsulate, image
from apt_ostree.cli.commands.compose_publish import publish
from apt_ostree.errors import UsageError
from apt_ostree.model.requests.compose import (
    ComposeCommit,
    ComposeExtensions,
    ComposeInstall,
    ComposePostprocess,
    ComposeRootfs,
    ComposeSign,
    ComposeTree,
)

Command = Callable[..., Any]
_PATH = click.Path(path_type=Path)

_homedir = click.option(
    "--gpg-homedir", metavar="DIR", help="Directory of the GnuPG keyring; the default is your own."
)
_cachedir = click.option(
    "--cachedir", metavar="DIR", help="Keep in this directory what the next compose can use again."
)
_cache_only = click.option(
    "--cache-only", is_flag=True, help="Use only what is in the directory of --cachedir, and no network."
)
_download_only = click.option(
    "--download-only",
    "--download-only-rpms",
    "download_only",
    is_flag=True,
    help="Only download the packages into the directory of --cachedir.",
)
_print_only = click.option(
    "--print-only", is_flag=True, help="Only print the treefile as JSON, with its includes merged."
)
_ids_of = click.option(
    "-r", "--repo", metavar="REPO", help="Repository with the ref whose accounts keep their ids."
)
_dry_run = click.option(
    "--dry-run", "-n", is_flag=True, help="Only list the packages that would be installed."
)
_LOCKFILES = (
    click.option(
        "--lockfile",
        "--ex-lockfile",
        "lockfiles",
        multiple=True,
        metavar="FILE",
        help="Take the versions of this lockfile; may be repeated.",
    ),
    click.option(
        "--lockfile-strict",
        "--ex-lockfile-strict",
        "lock_strictly",
        is_flag=True,
        help="Refuse packages that no lockfile has.",
    ),
    click.option(
        "--write-lockfile-to",
        "--ex-write-lockfile-to",
        "write_lockfile",
        metavar="FILE",
        help="Write the versions to this lockfile.",
    ),
)
_COMMIT = (
    click.option(
        "-r", "--repo", metavar="REPO", help="Repository to commit to; created (bare) if it does not exist."
    ),
    click.option("--ref", metavar="REF", help="Commit to this ref instead of that of the treefile."),
    click.option("--version", metavar="VERSION", help="Use this version instead of that of the treefile."),
    click.option(
        "--add-metadata-string",
        "strings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Add a string to the commit's metadata; may be repeated.",
    ),
    click.option(
        "--add-metadata-from-json",
        "metadata_files",
        multiple=True,
        metavar="FILE",
        help="Add the keys of the JSON object in FILE to the commit's metadata; may be repeated.",
    ),
    click.option("--no-parent", is_flag=True, help="Make a commit without a parent."),
    click.option(
        "--parent", metavar="REV", help="Make this ref or commit the parent, in place of the ref's commit."
    ),
    click.option(
        "--gpg-sign",
        "sign",
        multiple=True,
        metavar="KEY-ID",
        help="Sign the commit with this key of the GnuPG keyring; may be repeated.",
    ),
    _homedir,
    click.option("--static-delta", is_flag=True, help="Make a static delta from the ref's last commit."),
    click.option("--unchanged-exit-77", is_flag=True, help="Exit with 77 if nothing has changed."),
    click.option(
        "--touch-if-changed",
        type=_PATH,
        metavar="FILE",
        help="Update the time stamp of FILE if there is a new commit, or would be.",
    ),
    click.option(
        "--write-commitid-to", type=_PATH, metavar="FILE", help="Write the commit's checksum to FILE."
    ),
    click.option(
        "--write-composejson-to",
        "write_composejson",
        metavar="FILE",
        help="Write to FILE what was committed, as JSON with rpm-ostree's keys.",
    ),
)
#: rpm-ostree has it, and there is no other way here.
_unified_core = options.without_effect("--unified-core", "--ex-unified-core")


def _with(group: Sequence[Callable[[Command], Command]]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(group):
            command = option(command)
        return command

    return add


@click.group()
def compose() -> None:
    """Compose a tree from Debian packages."""


compose.add_command(disk)
compose.add_command(image)
compose.add_command(container_encapsulate)
compose.add_command(publish)


@compose.command()
@click.argument("treefile", type=_PATH)
@_with(_COMMIT)
@click.option(
    "--workdir", metavar="DIR", help="Use this work directory; the default is in or beside the repository."
)
@options.without_effect("--workdir-tmpfs")
@_cachedir
@_cache_only
@click.option("--force-nocache", is_flag=True, help="Compose even if nothing has changed.")
@click.option(
    "--previous-commit",
    metavar="REV",
    help="Compare with this ref or commit, and keep the ids of its accounts, in place of the ref's commit.",
)
@click.option(
    "--previous-inputhash",
    "previous_inputs",
    metavar="DIGEST",
    help="Compare with this digest of inputs, in place of that of a commit.",
)
@click.option(
    "--verify-reproducible",
    "verify",
    is_flag=True,
    help="Compose the tree a second time, and commit it only if both are the same.",
)
@_print_only
@_dry_run
@_download_only
@_with(_LOCKFILES)
@options.output
def tree(treefile: Path, strings: tuple[str, ...], **given: Any) -> int:
    """Compose the tree that TREEFILE describes and commit it to a repository."""
    request = ComposeTree(
        treefile=str(treefile),
        workdir=given["workdir"],
        previous_commit=given["previous_commit"],
        previous_inputs=given["previous_inputs"],
        print_only=given["print_only"],
        dry_run=given["dry_run"],
        download_only=given["download_only"],
        force=given["force_nocache"],
        verify=_verify(given),
        **_of_packages(given),
        **_of_commit(strings, given),
    )
    if request.print_only:
        return options.run_verb(request, given | {"unchanged_exit_77": False}, show=_show_treefile)
    if request.dry_run or request.download_only:
        return options.run_verb(request, given, show=_show_packages, then=partial(_touch, given))
    return options.run_verb(request, given, show=_show_commit, then=partial(_write_files, given))


@compose.command()
@click.argument("treefile", type=_PATH)
@click.argument("destdir", type=_PATH)
@_ids_of
@_cachedir
@_cache_only
@options.without_effect("--force-nocache")
@click.option("--postprocess", is_flag=True, help="Give it the form of a tree, too.")
@_print_only
@_dry_run
@_download_only
@_with(_LOCKFILES)
@_unified_core
@options.output
def install(treefile: Path, destdir: Path, **given: Any) -> int:
    """Install the packages that TREEFILE describes in DESTDIR/rootfs.

    DESTDIR is empty, or there is nothing. 'compose postprocess' and 'compose commit' go on from there.
    """
    request = ComposeInstall(
        treefile=str(treefile),
        destdir=str(destdir),
        repo=given["repo"],
        postprocess=given["postprocess"],
        print_only=given["print_only"],
        dry_run=given["dry_run"],
        download_only=given["download_only"],
        **_of_packages(given),
    )
    if request.print_only:
        return options.run_verb(request, given, show=_show_treefile)
    is_list = request.dry_run or request.download_only
    return options.run_verb(request, given, show=_show_packages if is_list else _show_rootfs)


@compose.command()
@click.argument("rootfs", type=_PATH)
@click.argument("treefile", type=_PATH, required=False)
@_unified_core
@options.output
def postprocess(rootfs: Path, treefile: Path | None, **given: Any) -> int:
    """Give the root filesystem ROOTFS the form of a tree.

    The settings of TREEFILE, such as its files, units and scripts, are applied before. ROOTFS is that of
    'compose install', or another one with Debian's packages; it is replaced when all is done.
    """
    request = ComposePostprocess(rootfs=str(rootfs), treefile=str(treefile) if treefile else None)
    return options.run_verb(request, given, show=_show_rootfs)


@compose.command()
@click.argument("treefile", type=_PATH)
@click.argument("rootfs", type=_PATH)
@_with(_COMMIT)
@_unified_core
@options.output
def commit(treefile: Path, rootfs: Path, strings: tuple[str, ...], **given: Any) -> int:
    """Commit the root filesystem ROOTFS, which 'compose postprocess' has finished, to a repository.

    TREEFILE says which ref, version and metadata; ROOTFS stays as it is.
    """
    request = ComposeCommit(treefile=str(treefile), rootfs=str(rootfs), **_of_commit(strings, given))
    return options.run_verb(request, given, show=_show_commit, then=partial(_write_files, given))


@compose.command()
@click.argument("treefile", type=_PATH)
@click.argument("dest", type=_PATH)
@_ids_of
@_cachedir
@_cache_only
@_with(_LOCKFILES)
@options.output
def rootfs(treefile: Path, dest: Path, **given: Any) -> int:
    """Make a root filesystem in the form of a tree at DEST, for other tools.

    At DEST there is nothing, or an empty directory.
    """
    request = ComposeRootfs(treefile=str(treefile), dest=str(dest), repo=given["repo"], **_of_packages(given))
    return options.run_verb(request, given, show=_show_rootfs)


@compose.command(
    epilog="Example: apt-ostree compose extensions os.yaml extensions.yaml --repo=/srv/repo "
    "--output-dir=/srv/extensions"
)
@click.argument("treefile", type=_PATH)
@click.argument("extensions", metavar="EXTENSIONS.YAML", type=_PATH)
@click.option("--output-dir", metavar="DIR", required=True, help="Directory for the packages.")
@click.option("-r", "--repo", metavar="REPO", help="Repository with the base.")
@click.option("--base-rev", metavar="REV", help="The base; by default the last commit of the treefile's ref.")
@click.option("--rootfs", metavar="ROOTFS", help="The base is this root filesystem.")
@_cachedir
@click.option(
    "--touch-if-changed",
    type=_PATH,
    metavar="FILE",
    help="Update the time stamp of FILE if the packages have changed.",
)
@_unified_core
@options.output
def extensions(treefile: Path, extensions: Path, **given: Any) -> int:
    """Download packages that machines can layer on a base.

    They are resolved against the packages of the base, none of which they may change, and put into a
    directory with a file extensions.json, which names them and their digests.
    """
    request = ComposeExtensions(
        treefile=str(treefile),
        extensions=str(extensions),
        output_dir=given["output_dir"],
        repo=given["repo"],
        base_rev=given["base_rev"],
        rootfs=given["rootfs"],
        cachedir=given["cachedir"],
    )
    return options.run_verb(request, given, show=_show_extensions, then=partial(_touch, given))


def _of_packages(given: Mapping[str, Any]) -> dict[str, Any]:
    for other in ("cache_only", "dry_run"):
        if given.get("download_only") and given[other]:
            raise click.UsageError(f"--{other.replace('_', '-')} and --download-only exclude each other")
    names = ("cachedir", "cache_only", "lockfiles", "write_lockfile", "lock_strictly")
    return {name: given[name] for name in names}


def _verify(given: Mapping[str, Any]) -> bool:
    for other in ("print_only", "dry_run", "download_only"):
        if given["verify"] and given[other]:
            raise UsageError(
                f"--{other.replace('_', '-')} makes nothing that --verify-reproducible could verify"
            )
    return bool(given["verify"])


def _of_commit(strings: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
    if given["no_parent"] and given["parent"]:
        raise click.UsageError("--no-parent and --parent exclude each other")
    names = (
        *("repo", "ref", "version", "metadata_files", "parent", "write_composejson"),
        *("sign", "gpg_homedir", "static_delta"),
    )
    metadata = dict(map(_key_and_value, strings))
    return {name: given[name] for name in names} | {
        "metadata": metadata,
        "keep_parent": not given["no_parent"],
    }


@compose.command(
    epilog="Example: apt-ostree compose sign --repo=/srv/repo --rev=debian/13/server --key=os@example.org"
)
@click.option("--repo", metavar="REPO", required=True, help="Repository of the commits.")
@click.option(
    "--rev", "revs", metavar="REV", multiple=True, required=True, help="Ref or commit; may be repeated."
)
@click.option(
    "--key", "keys", metavar="KEY-ID", multiple=True, required=True, help="Key that signs; may be repeated."
)
@_homedir
@options.output
def sign(revs: tuple[str, ...], keys: tuple[str, ...], **given: Any) -> int:
    """Sign commits of a repository with GnuPG.

    Machines whose remote has the public key verify it when they pull a commit, and before they deploy it. A
    key that has signed a commit already does not sign it again.
    """
    request = ComposeSign(repo=given["repo"], revs=revs, keys=keys, gpg_homedir=given["gpg_homedir"])
    return options.run_verb(request, given | {"unchanged_exit_77": False}, show=_show_signed)


def _show_signed(result: Mapping[str, Any]) -> None:
    render.lines("\n".join(result["commits"]))


def _show_rootfs(result: Mapping[str, Any]) -> None:
    render.lines(result["rootfs"])


def _show_extensions(result: Mapping[str, Any]) -> None:
    render.lines("\n".join(f"{row['file']} {row['sha256']}" for row in result["packages"]))


def _show_treefile(result: Mapping[str, Any]) -> None:
    render.result_json(result["treefile"])


def _show_packages(result: Mapping[str, Any]) -> None:
    render.lines("\n".join(f"{name} {version}" for name, version, _architecture in result["packages"]))


def _show_commit(result: Mapping[str, Any]) -> None:
    if result["commit"]:
        render.lines(f"{result['ref']} {result['commit']}")


def _write_files(given: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    if (commit_file := given["write_commitid_to"]) and result["commit"]:
        commit_file.write_text(f"{result['commit']}\n")
    _touch(given, result)


def _touch(given: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    if (touched := given["touch_if_changed"]) and result["changed"]:
        touched.touch()


def _key_and_value(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not (key and separator):
        raise UsageError(f"--add-metadata-string: expected KEY=VALUE, got {text!r}")
    return key, value
