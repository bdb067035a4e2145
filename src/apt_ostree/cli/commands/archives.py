"""refresh-md and search."""

from __future__ import annotations

from typing import Any

import click

from apt_ostree.cli import options, plans, render
from apt_ostree.model.queries import Search
from apt_ostree.model.requests.archives import RefreshMd


@click.command(name="refresh-md", epilog="Examples: apt-ostree refresh-md; apt-ostree refresh-md --force")
@options.output
@click.option("-f", "--force", is_flag=True, help="Download them even if they are current.")
def refresh_md(force: bool, **given: Any) -> int:
    """Download and verify the package lists of the configured archives.

    Without --force, lists that are less than a day old and newer than the configuration are not downloaded,
    unless an archive failed the last time.
    """
    return options.run_verb(RefreshMd(force=force), given)


@click.command(epilog="Examples: apt-ostree search editor; apt-ostree search web server")
@click.argument("terms", nargs=-1, required=True, metavar="TERM...")
@options.json_document
@options.quiet
def search(terms: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Search packages by name and summary; each TERM must occur in one of them.

    Installed packages are marked.
    """
    result = options.answer(Search(terms=terms))
    for warning in () if quiet else result["warnings"]:
        render.warning(warning)
    if as_json:
        render.result_json(result)
    else:
        render.lines("\n".join(plans.matches(result["matches"])))
