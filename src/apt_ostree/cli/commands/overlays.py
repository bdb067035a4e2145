"""usroverlay: named overlays of files, and the unlocked /usr as in rpm-ostree."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import click

from apt_ostree.cli import options, overlayview, render
from apt_ostree.model import queries
from apt_ostree.model.request import Request


def _names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of an overlay."""
    return options.completions(queries.OverlayNames(), incomplete)


def _paths(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete a path below /usr or /etc."""
    if not incomplete.startswith(("/usr/", "/etc/")):
        return [top for top in ("/usr/", "/etc/") if top.startswith(incomplete)]
    directory, _, start = incomplete.rpartition("/")
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError:
        return []
    return [e.path + ("/" if e.is_dir() else "") for e in entries if e.name.startswith(start)]


def _owner(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Return the ids of USER[:GROUP], given by name or number."""
    import grp
    import pwd

    from apt_ostree.model.overlay_edit import LARGEST_ID

    if value is None:
        return None
    user, _, group = value.partition(":")
    try:
        uid = int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
        if not group:
            gid = pwd.getpwuid(uid).pw_gid
        else:
            gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise click.BadParameter(f"there is no user or group {value!r}") from error
    if max(uid, gid) > LARGEST_ID:
        raise click.BadParameter(f"{value!r}: the largest id is {LARGEST_ID}")
    return uid, gid


def _mode(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    try:
        mode = int(value, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise click.BadParameter(f"{value!r} is not a mode such as 0644")
    return mode


@click.command(
    epilog="Examples: apt-ostree usroverlay --create --name=web; "
    "apt-ostree usroverlay --name=web --add=/etc/nginx/nginx.conf --from=nginx.conf; "
    "apt-ostree usroverlay --list; apt-ostree usroverlay --disable=web; apt-ostree usroverlay --remove"
)
@options.output
@options.dry_run
@options.assume_yes
@options.no_wait
@options.force
@options.restart_services
@options.confirm_within
@options.override_policy
@click.option(
    "--name", metavar="NAME", shell_complete=_names, help="The overlay; default: the one last worked on."
)
@click.option("--create", is_flag=True, help="Make an overlay.")
@click.option("--add", multiple=True, metavar="PATH", shell_complete=_paths, help="Add a file or directory.")
@click.option(
    "--modify",
    multiple=True,
    metavar="PATH",
    shell_complete=_paths,
    help="Edit a file, or replace it with --from.",
)
@click.option("--remove-file", multiple=True, metavar="PATH", shell_complete=_paths, help="Hide a path.")
@click.option(
    "--drop",
    multiple=True,
    metavar="PATH",
    shell_complete=_paths,
    help="Drop a path from the overlay; what is below it shows again.",
)
@click.option(
    "--from",
    "sources",
    multiple=True,
    metavar="FILE",
    type=click.Path(),
    help="The content for --add or --modify, one FILE for each, in order.",
)
@click.option("--mode", metavar="MODE", callback=_mode, help="Mode of the added files.")
@click.option("--owner", metavar="USER[:GROUP]", callback=_owner, help="Owner of the added files.")
@click.option("--template", is_flag=True, help="The added files are Jinja2 templates.")
@click.option(
    "--when",
    metavar="CONDITION",
    help="Show the added files, or with --create the overlay, only if this is true.",
)
@click.option(
    "--enable", metavar="NAME", is_flag=False, flag_value="", shell_complete=_names, help="Show an overlay."
)
@click.option(
    "--disable", metavar="NAME", is_flag=False, flag_value="", shell_complete=_names, help="Hide an overlay."
)
@click.option(
    "--set-priority",
    "--priority",
    "priority",
    type=click.IntRange(0, 999),
    metavar="NUMBER",
    help="Priority; the highest is on top. Default: 50.",
)
@click.option(
    "--scope", type=click.Choice(["system", "user", "global"]), help="Scope of the overlay. Default: system."
)
@click.option("--user", metavar="USER", help="The user of an overlay with --scope=user.")
@click.option(
    "--persistence",
    type=click.Choice(["persistent", "temporary", "hybrid"]),
    help="What is kept at a reboot: all, nothing, or --persist. Default: persistent.",
)
@click.option(
    "--persist", "persists", multiple=True, metavar="PATTERN", help="Paths that a hybrid overlay keeps."
)
@click.option(
    "--on-conflict",
    type=click.Choice(["keep", "drop", "disable"]),
    help="What to do with paths that the base has changed, too. Default: keep.",
)
@click.option(
    "--inherit",
    "inherits",
    multiple=True,
    metavar="NAME",
    shell_complete=_names,
    help="Also show the files of another overlay.",
)
@click.option(
    "--set", "values", multiple=True, metavar="KEY=VALUE", help="A value for templates and conditions."
)
@click.option("--allow", multiple=True, metavar="RULE", help="Allow the overlay to break a content rule.")
@click.option("--rename", metavar="NAME", help="Rename the overlay.")
@click.option("--remove", is_flag=True, help="Remove the overlay.")
@click.option("--transient", is_flag=True, help="Unlock /usr for mount namespaces that remount it writable.")
@click.option(
    "--hotfix", is_flag=True, help="Unlock /usr until the next deployment, and keep a copy of the booted one."
)
@click.option(
    "--save", metavar="NAME", help="Save the changes of the unlocked /usr in an overlay; lock /usr."
)
@click.option("--discard", is_flag=True, help="Discard the changes of the unlocked /usr; lock it.")
@click.option(
    "--backup", metavar="PATH", is_flag=False, flag_value="", help="Write one overlay, or all, to a backup."
)
@click.option(
    "--restore", metavar="SOURCE", help="Restore overlays from a backup, or an overlay from a commit."
)
@click.option("--allow-unsigned", is_flag=True, help="Restore from a backup without a valid signature.")
@click.option("--check", is_flag=True, help="Check overlays for damage; repair or disable damaged ones.")
@click.option(
    "--cleanup", is_flag=True, help="Remove disabled overlays that exceed a limit, and undone commits."
)
@click.option(
    "--older-than", metavar="TIME", type=options.Span(), help="With --cleanup: not changed for this time."
)
@click.option("--keep", metavar="NUMBER", type=click.IntRange(0), help="With --cleanup: more than NUMBER.")
@click.option(
    "--larger-than", metavar="SIZE", type=options.Size(), help="With --cleanup: more than SIZE together."
)
@click.option("--archive", is_flag=True, help="With --cleanup: write a backup first.")
@click.option("--list", "as_list", is_flag=True, help="List the overlays, or with --name the paths of one.")
@click.option(
    "--diff", "as_diff", is_flag=True, help="List the paths that overlays show, and what they hide."
)
@click.option("--history", "as_history", is_flag=True, help="List the overlay's commits.")
def usroverlay(**given: Any) -> int:
    """Manage named overlays of files for /usr and /etc. A reboot is not needed, and a change can be undone.

    An overlay shows at once and again after each reboot, unless it is temporary. Affected services are
    treated as in an upgrade of packages: the plan lists them, and --restart-services acts on them.

    Without options, /usr is unlocked, as with rpm-ostree: it is writable until the reboot, until --save saves
    the changes in an overlay, or until --discard discards them.
    """
    name = _one_name(given)
    if given["as_list"] or given["as_diff"] or given["as_history"]:
        return _read(name, given)

    from apt_ostree.cli.overlay_requests import put_backup, request_of  # what reads does not wait for it
    from apt_ostree.model.requests.overlays import OverlayBackup

    with request_of(name, given) as request:
        then = partial(put_backup, request) if isinstance(request, OverlayBackup) else None
        return options.run_verb(request, given, ask=options.can_ask(given), then=then)


def _one_name(given: Mapping[str, Any]) -> str | None:
    """Return the name of the overlay, which --name, --enable and --disable can give."""
    names = {given[key] for key in ("name", "enable", "disable") if given[key]}
    if len(names) > 1:
        raise click.UsageError(f"only one overlay can be named: {', '.join(sorted(names))}")
    return names.pop() if names else None


def _read(name: str | None, given: Mapping[str, Any]) -> int:
    """List overlays, the paths or the history of one, or the paths that are shown."""
    query: Request
    lines: Callable[[Any], Iterator[str]]
    if given["as_diff"]:
        query, lines = queries.OverlayPaths(), overlayview.source_lines
    elif given["as_history"]:
        query, lines = queries.OverlayHistory(name=name), overlayview.history_lines
    elif name:
        query, lines = queries.OverlayContents(name=name), overlayview.content_lines
    else:
        query, lines = queries.Overlays(), overlayview.overlay_lines
    answer = options.answer_json(query)
    if given["as_json"]:
        render.result_json(answer)
    else:
        render.lines("\n".join(lines(answer)))
    return 0
