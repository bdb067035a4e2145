"""`apt-ostree compose`: build trees on any machine, booted from OSTree or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from apt_ostree.cli import client, render
from apt_ostree.errors import EXIT_UNCHANGED, AptOstreeError, UsageError


@click.group()
def compose() -> None:
    """Compose a tree from Debian packages."""


@compose.command()
@click.argument("treefile", type=click.Path(path_type=Path))
@click.option("--repo", metavar="REPO", help="Repository to commit to; created (bare) when absent.")
@click.option("--ref", metavar="REF", help="Commit to this ref instead of the treefile's.")
@click.option("--version", metavar="VERSION", help="Version of the commit instead of the treefile's.")
@click.option(
    "--add-metadata-string",
    "strings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Add a string to the commit's metadata; may be repeated.",
)
@click.option("--workdir", metavar="DIR", help="Work here instead of on the repository's file system.")
@click.option("--force-nocache", is_flag=True, help="Compose even when nothing has changed.")
@click.option("--no-parent", is_flag=True, help="Make a commit without a parent.")
@click.option("--print-only", is_flag=True, help="Print the treefile, includes merged, as JSON and stop.")
@click.option("--dry-run", "-n", is_flag=True, help="List the packages that would be installed and stop.")
@click.option("--unchanged-exit-77", is_flag=True, help="Exit with 77 when nothing has changed.")
@click.option(
    "--touch-if-changed",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Update the time stamp of FILE when there is a new commit.",
)
@click.option(
    "--write-commitid-to",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the commit's checksum to FILE.",
)
@click.option("--json", "as_json", is_flag=True, help="Print events and the result as JSON.")
@click.option("--quiet", "-q", is_flag=True, help="Print warnings and the result only.")
def tree(treefile: Path, strings: tuple[str, ...], as_json: bool, quiet: bool, **options: Any) -> int:
    """Compose the tree that TREEFILE describes and commit it to a repository."""
    arguments = {
        "treefile": str(treefile),
        "repo": options["repo"],
        "ref": options["ref"],
        "version": options["version"],
        "metadata": dict(map(_key_and_value, strings)),
        "workdir": options["workdir"],
        "print_only": options["print_only"],
        "dry_run": options["dry_run"],
        "force": options["force_nocache"],
        "keep_parent": not options["no_parent"],
    }
    try:
        result = client.call("compose-tree", arguments, render.view(as_json=as_json, quiet=quiet))
    except AptOstreeError as failure:
        return render.error(failure, as_json=as_json, verbose=None)
    if options["print_only"]:
        render.result_json(result["treefile"])
        return 0
    if as_json:
        render.result_json(result)
    elif options["dry_run"]:
        render.lines("\n".join(f"{name} {version}" for name, version, _arch in result["packages"]))
    else:
        render.lines(f"{result['ref']} {result['commit']}")
    if options["dry_run"]:
        return 0
    _leave_marks(result, options["write_commitid_to"], options["touch_if_changed"])
    return EXIT_UNCHANGED if options["unchanged_exit_77"] and not result["changed"] else 0


def _leave_marks(result: Any, commit_file: Path | None, touched: Path | None) -> None:
    if commit_file:
        commit_file.write_text(f"{result['commit']}\n")
    if touched and result["changed"]:
        touched.touch()


def _key_and_value(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not (key and separator):
        raise UsageError(f"--add-metadata-string: expected KEY=VALUE, got {text!r}")
    return key, value
