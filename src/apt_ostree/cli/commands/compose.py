"""`apt-ostree compose`: composes trees, on any machine."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from apt_ostree.cli import options, render
from apt_ostree.errors import UsageError
from apt_ostree.model.requests.archives import ComposeSign, ComposeTree

_homedir = click.option(
    "--gpg-homedir", metavar="DIR", help="Directory of the GnuPG keyring; the default is your own."
)


@click.group()
def compose() -> None:
    """Compose a tree from Debian packages."""


@compose.command()
@click.argument("treefile", type=click.Path(path_type=Path))
@click.option(
    "-r", "--repo", metavar="REPO", help="Repository to commit to; created (bare) if it does not exist."
)
@click.option("--ref", metavar="REF", help="Commit to this ref instead of that of the treefile.")
@click.option("--version", metavar="VERSION", help="Use this version instead of that of the treefile.")
@click.option(
    "--add-metadata-string",
    "strings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Add a string to the commit's metadata; may be repeated.",
)
@click.option(
    "--workdir", metavar="DIR", help="Use this work directory; the default is in or beside the repository."
)
@click.option("--force-nocache", is_flag=True, help="Compose even if nothing has changed.")
@click.option("--no-parent", is_flag=True, help="Make a commit without a parent.")
@click.option("--print-only", is_flag=True, help="Only print the treefile as JSON, with its includes merged.")
@click.option("--dry-run", "-n", is_flag=True, help="Only list the packages that would be installed.")
@click.option(
    "--gpg-sign",
    "sign",
    multiple=True,
    metavar="KEY-ID",
    help="Sign the commit with this key of the GnuPG keyring; may be repeated.",
)
@_homedir
@click.option("--static-delta", is_flag=True, help="Make a static delta from the ref's last commit.")
@click.option(
    "--lockfile",
    "--ex-lockfile",
    "lockfiles",
    multiple=True,
    metavar="FILE",
    help="Take the versions of this lockfile; may be repeated.",
)
@click.option(
    "--lockfile-strict",
    "--ex-lockfile-strict",
    "lock_strictly",
    is_flag=True,
    help="Refuse packages that no lockfile has.",
)
@click.option(
    "--write-lockfile-to",
    "--ex-write-lockfile-to",
    "write_lockfile",
    metavar="FILE",
    help="Write the versions to this lockfile.",
)
@click.option("--unchanged-exit-77", is_flag=True, help="Exit with 77 if nothing has changed.")
@click.option(
    "--touch-if-changed",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Update the time stamp of FILE if there is a new commit.",
)
@click.option(
    "--write-commitid-to",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the commit's checksum to FILE.",
)
@options.output
def tree(treefile: Path, strings: tuple[str, ...], **given: Any) -> int:
    """Compose the tree that TREEFILE describes and commit it to a repository."""
    request = ComposeTree(
        treefile=str(treefile),
        repo=given["repo"],
        ref=given["ref"],
        version=given["version"],
        metadata=dict(map(_key_and_value, strings)),
        workdir=given["workdir"],
        print_only=given["print_only"],
        dry_run=given["dry_run"],
        force=given["force_nocache"],
        keep_parent=not given["no_parent"],
        sign=given["sign"],
        gpg_homedir=given["gpg_homedir"],
        static_delta=given["static_delta"],
        lockfiles=given["lockfiles"],
        write_lockfile=given["write_lockfile"],
        lock_strictly=given["lock_strictly"],
    )
    if request.print_only:
        return options.run_verb(request, given, show=_show_treefile)
    if request.dry_run:
        return options.run_verb(request, given | {"unchanged_exit_77": False}, show=_show_packages)
    return options.run_verb(request, given, show=_show_commit, then=partial(_write_files, given))


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


def _show_treefile(result: Mapping[str, Any]) -> None:
    render.result_json(result["treefile"])


def _show_packages(result: Mapping[str, Any]) -> None:
    render.lines("\n".join(f"{name} {version}" for name, version, _architecture in result["packages"]))


def _show_commit(result: Mapping[str, Any]) -> None:
    render.lines(f"{result['ref']} {result['commit']}")


def _write_files(given: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    if commit_file := given["write_commitid_to"]:
        commit_file.write_text(f"{result['commit']}\n")
    if (touched := given["touch_if_changed"]) and result["changed"]:
        touched.touch()


def _key_and_value(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not (key and separator):
        raise UsageError(f"--add-metadata-string: expected KEY=VALUE, got {text!r}")
    return key, value
