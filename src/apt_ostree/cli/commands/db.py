"""db: the packages of commits, with rpm-ostree's commands, options and JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click

from apt_ostree.cli import options, render
from apt_ostree.model.queries import CommitDiff, CommitPackages

Command = Callable[..., Any]


def _place(command: Command) -> Command:
    """Return the command with the options that say where the commits are; nothing but a result is printed."""
    for option in (
        click.option("--repo", "-r", metavar="PATH", help="Look in the repository at PATH."),
        click.option("--sysroot", default="/", metavar="PATH", help="Look in the system below PATH."),
        options.without_effect("-q", "--quiet"),
    ):
        command = option(command)
    return command


@click.group(
    epilog="Examples: apt-ostree db diff; apt-ostree db diff --changelogs booted pending; "
    "apt-ostree db list booted 'libc*'"
)
def db() -> None:
    """Show and compare the packages of commits.

    A commit is named by its checksum, by a ref, or as booted, pending, rollback or live.
    """


@db.command()
@click.option(
    "--format",
    "-F",
    "layout",
    type=click.Choice(["block", "diff", "json"]),
    default="block",
    show_default=True,
    help="How the difference is shown.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format=json.")
@click.option("--changelogs", "-c", is_flag=True, help="Show what the changelogs say of newer versions.")
@click.option("--advisories", "-a", is_flag=True, help="Show the vulnerabilities that newer versions mend.")
@click.option("--base", is_flag=True, help="Compare the commits that packages are layered on.")
@_place
@click.argument("revisions", metavar="[FROM [TO]]", nargs=-1)
def diff(layout: str, revisions: tuple[str, ...], as_json: bool, advisories: bool, **given: Any) -> int:
    """Show which packages differ between two commits.

    By default the booted deployment is compared with the pending one, or else the rollback one with it.
    With FROM alone, the booted one is compared with that. JSON always has the vulnerabilities.
    """
    if len(revisions) > 2:
        raise click.UsageError("at most two commits can be compared")
    is_json = as_json or layout == "json"
    answer = options.answer_here(CommitDiff(names=revisions, advisories=advisories or is_json, **given))
    if is_json:
        render.result_json(_as_rpm_ostree(answer))
        return 0
    show = _blocks if layout == "block" else _signs
    render.lines("\n".join([*_ends(answer), *show(answer), *_said(answer)]))
    return 0


@db.command("list")
@options.json_document
@_place
@click.argument("names", metavar="[REVISION...] [PATTERN...]", nargs=-1)
def list_packages(names: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """List the packages of commits, of the booted one by default, or those that match a pattern."""
    answer = options.answer_here(CommitPackages(names=names, **given))
    if as_json:
        render.result_json(answer)
        return 0
    for commit in answer:
        packages = [f" {p['name']} {p['version']} {p['architecture']}" for p in commit["packages"]]
        render.lines("\n".join([_named("ostree commit: ", commit), *packages]))
    return 0


@db.command()
@options.json_document
@_place
@click.argument("revisions", metavar="[REVISION...]", nargs=-1)
def version(revisions: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """Show a digest of the packages of commits; it is the same for the same packages."""
    answer = options.answer_here(CommitPackages(names=revisions, **given))
    if as_json:
        render.result_json([{k: v for k, v in commit.items() if k != "packages"} for commit in answer])
        return 0
    for commit in answer:
        render.lines(f"{_named('ostree commit: ', commit)}\n  packages: {commit['digest']}")
    return 0


# --- text


def _ends(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield the two commits, which is all that there is of equal ones."""
    yield _named("ostree diff commit from: ", answer["from"])
    yield _named("ostree diff commit to:   ", answer["to"])


def _named(what: str, commit: Mapping[str, Any]) -> str:
    deployments = ("booted", "pending", "rollback", "live")
    name = f"{commit['name']} deployment" if commit["name"] in deployments else commit["name"]
    return what + (name if name == commit["checksum"] else f"{name} ({commit['checksum']})")


def _blocks(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield the packages by what becomes of them."""
    from apt_ostree.model.rpmostree.packages import Kind, differences

    rows = differences(answer["packages"])
    for kind in (Kind.UPGRADED, Kind.DOWNGRADED, Kind.REMOVED, Kind.ADDED):
        chosen = [two for _name, of, two in rows if of == kind]
        if chosen:
            yield f"{kind.name.capitalize()}:"
        for two in chosen:  # the previous package, the new one, or both
            names, versions, _architectures = zip(*two.values(), strict=True)
            yield f"  {names[0]} {' -> '.join(versions)}"


def _signs(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each package, with rpm-ostree's signs: ! before and = after a change."""
    packages = answer["packages"]
    rows = [
        (c["name"], [f"!{c['name']} {c['old']}", f"={c['name']} {c['new']}"]) for c in packages["changed"]
    ]
    rows += [(p["name"], [f"-{p['name']} {p['version']}"]) for p in packages["removed"]]
    rows += [(p["name"], [f"+{p['name']} {p['version']}"]) for p in packages["added"]]
    for _name, lines in sorted(rows):
        yield from lines


def _said(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield what changelogs say."""
    for row in answer.get("advisories", ()):
        yield f"Vulnerabilities mended by {row['package']} {row['version']}:"
        yield from (f"  {name}" for name in row["cves"])
    for name, entries in answer.get("changelogs", {}).items():
        yield f"Changes of {name}:"
        for entry in entries:
            yield ""
            yield from (f"  {line}".rstrip() for line in entry["text"].splitlines())


# --- values


def _as_rpm_ostree(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object that `rpm-ostree db diff --format=json` prints, and changelogs if there are any."""
    from apt_ostree.model.rpmostree.packages import differences

    made: dict[str, Any] = {
        "ostree-commit-from": answer["from"]["checksum"],
        "ostree-commit-to": answer["to"]["checksum"],
        "pkgdiff": differences(answer["packages"]),
        "advisories": answer["advisories"],
    }
    return made | ({"changelogs": answer["changelogs"]} if "changelogs" in answer else {})
