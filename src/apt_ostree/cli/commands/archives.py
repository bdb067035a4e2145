"""refresh-md and search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from apt_ostree.cli import options, render


@click.command(name="refresh-md", epilog="Examples: apt-ostree refresh-md; apt-ostree refresh-md --force")
@options.json_output
@options.quiet
@click.option("-f", "--force", is_flag=True, help="Download them although they are current.")
def refresh_md(force: bool, **given: Any) -> int:
    """Download and verify the package lists of the configured archives.

    Without --force, lists that are younger than a day and than the configuration stay.
    """
    return options.run_verb("refresh-md", {"force": force}, given)


@click.command(epilog="Examples: apt-ostree search editor; apt-ostree search web server")
@click.argument("terms", nargs=-1, required=True, metavar="TERM...")
@options.json_output
@options.quiet
def search(terms: tuple[str, ...], **given: Any) -> int:
    """Search packages by name and summary; each TERM must be found, in either.

    Packages that are installed are marked.
    """
    return options.run_verb("search", {"terms": list(terms)}, given, show=_show_matches)


def _show_matches(result: Mapping[str, Any]) -> None:
    from apt_ostree.cli import plans

    render.lines("\n".join(plans.matches(result["matches"])))
