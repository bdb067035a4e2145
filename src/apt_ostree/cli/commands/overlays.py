"""usroverlay: named overlays of files, and rpm-ostree's unlocked /usr."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from apt_ostree.cli import options, render
from apt_ostree.errors import UsageError
from apt_ostree.model import queries, requests
from apt_ostree.model.openfile import OpenFile
from apt_ostree.model.overlay import EditAction, OnConflict, Persistence, Scope, UnlockMode
from apt_ostree.model.requests import PathEdit, Request
from apt_ostree.model.sizes import show_size
from apt_ostree.system import openfiles


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
    """Read USER[:GROUP], by name or number."""
    import grp
    import pwd

    if value is None:
        return None
    user, _, group = value.partition(":")
    try:
        uid = int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
        if not group:
            return uid, pwd.getpwuid(uid).pw_gid
        return uid, int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise click.BadParameter(f"{value!r} names nobody here") from error


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
@options.verbose
@options.restart_services
@options.confirm_within
@click.option(
    "--name", metavar="NAME", shell_complete=_names, help="The overlay; else the one last worked on."
)
@click.option("--create", is_flag=True, help="Make an overlay.")
@click.option(
    "--add", multiple=True, metavar="PATH", shell_complete=_paths, help="Take a file or directory in."
)
@click.option(
    "--modify", multiple=True, metavar="PATH", shell_complete=_paths, help="Edit a file, or take --from."
)
@click.option(
    "--remove-file", multiple=True, metavar="PATH", shell_complete=_paths, help="Let a path be gone."
)
@click.option(
    "--drop",
    multiple=True,
    metavar="PATH",
    shell_complete=_paths,
    help="Let go of a path: what is below shows again.",
)
@click.option(
    "--from",
    "sources",
    multiple=True,
    metavar="FILE",
    type=click.Path(),
    help="What --add or --modify takes, one for each, in order.",
)
@click.option("--mode", metavar="MODE", callback=_mode, help="Mode of the files that are added.")
@click.option("--owner", metavar="USER[:GROUP]", callback=_owner, help="Owner of the files that are added.")
@click.option("--template", is_flag=True, help="What is added are Jinja2 templates.")
@click.option(
    "--when",
    metavar="CONDITION",
    help="Show what is added, or with --create the overlay, only where this is true.",
)
@click.option(
    "--enable", metavar="NAME", is_flag=False, flag_value="", shell_complete=_names, help="Show an overlay."
)
@click.option(
    "--disable", metavar="NAME", is_flag=False, flag_value="", shell_complete=_names, help="Show it no more."
)
@click.option(
    "--set-priority",
    "--priority",
    "priority",
    type=click.IntRange(0, 999),
    metavar="NUMBER",
    help="The highest is on top (50).",
)
@click.option("--scope", type=click.Choice(["system", "user", "global"]), help="Whose it is (system).")
@click.option("--user", metavar="USER", help="For whom an overlay of scope user is.")
@click.option(
    "--persistence",
    type=click.Choice(["persistent", "temporary", "hybrid"]),
    help="What becomes of it at the reboot (persistent).",
)
@click.option(
    "--persist", "persists", multiple=True, metavar="PATTERN", help="Paths of a hybrid overlay that persist."
)
@click.option(
    "--on-conflict",
    type=click.Choice(["keep", "drop", "disable"]),
    help="Where the base has another version, too (keep).",
)
@click.option(
    "--inherit",
    "inherits",
    multiple=True,
    metavar="NAME",
    shell_complete=_names,
    help="Have the files of another overlay as well.",
)
@click.option(
    "--set", "values", multiple=True, metavar="KEY=VALUE", help="A value for templates and conditions."
)
@click.option("--allow", multiple=True, metavar="RULE", help="Let the overlay break a rule of content.")
@click.option("--rename", metavar="NAME", help="Give it another name.")
@click.option("--remove", is_flag=True, help="Remove the overlay.")
@click.option("--transient", is_flag=True, help="Unlock /usr for those who remount it in their namespace.")
@click.option("--hotfix", is_flag=True, help="Unlock /usr for good, with a copy to go back to.")
@click.option(
    "--save", metavar="NAME", help="Make an overlay of what was changed in the unlocked /usr; lock it."
)
@click.option("--discard", is_flag=True, help="Lock /usr; what was changed there shows no more.")
@click.option(
    "--backup", metavar="PATH", is_flag=False, flag_value="", help="Write one overlay, or all, to a backup."
)
@click.option("--restore", metavar="SOURCE", help="Bring overlays back from a backup, or a commit of one.")
@click.option("--allow-unsigned", is_flag=True, help="Restore from a backup that nobody known has signed.")
@click.option("--check", is_flag=True, help="Look for damage; repair it, else disable what is damaged.")
@click.option(
    "--cleanup", is_flag=True, help="Remove disabled overlays beyond these limits, and what was undone."
)
@click.option(
    "--older-than", metavar="TIME", type=options.Span(), help="With --cleanup: unchanged for so long."
)
@click.option("--keep", metavar="NUMBER", type=click.IntRange(0), help="With --cleanup: more than so many.")
@click.option(
    "--larger-than", metavar="SIZE", type=options.Size(), help="With --cleanup: more than fits into SIZE."
)
@click.option("--archive", is_flag=True, help="With --cleanup: back them up first.")
@click.option("--list", "as_list", is_flag=True, help="List the overlays, or with --name what one holds.")
@click.option(
    "--diff", "as_diff", is_flag=True, help="List the paths that overlays show, and what they hide."
)
@click.option("--history", "as_history", is_flag=True, help="List the overlay's commits.")
def usroverlay(**given: Any) -> int:
    """Keep named overlays of files over /usr and /etc, without a reboot and with a way back.

    An overlay shows at once and again after each reboot, unless it is temporary. Services that its files
    concern are treated as with a package's update: the plan names them, and --restart-services acts.

    Without anything to do, /usr is unlocked, as with rpm-ostree: writable until the reboot, or until --save
    makes an overlay of what was changed, or --discard throws it away.
    """
    name = _one_name(given)
    if given["as_list"] or given["as_diff"] or given["as_history"]:
        return _read(name, given)
    with _request(name, given) as request:
        then = partial(_put_backup, request) if isinstance(request, requests.OverlayBackup) else None
        return options.run_verb(request, given, ask=options.can_ask(given), then=then)


#: Options that ask for something to be done.
_ACTIONS = ("create", "add", "modify", "remove_file", "drop", "remove", "rename")
#: Options that are fields of the overlay's definition.
_FIELDS = ("scope", "user", "persistence", "persists", "on_conflict", "inherits", "allow")
#: Options that have a verb of their own.
_VERBS = ("transient", "hotfix", "save", "discard", "backup", "restore", "check", "cleanup")


@contextmanager
def _request(name: str | None, given: Mapping[str, Any]) -> Iterator[Request]:
    """Give what is asked for; files are open until the end."""
    live, dry_run = options.live_options(given), given["dry_run"]
    verb = _verb_of_its_own(name, given)
    if verb is None:
        with _edits(given) as edits:
            yield _edit_overlay(name, given, edits, live)
    elif verb == "backup":
        with _destination(given["backup"]) as destination:
            yield requests.OverlayBackup(name=name, destination=destination)
    elif verb == "restore":
        with _restore(name, given, live) as request:
            yield request
    elif verb == "cleanup":
        limits = {key: given[key] for key in ("older_than", "keep", "larger_than", "archive")}
        yield requests.OverlayCleanup(dry_run=dry_run, **limits)
    elif verb == "save":
        yield requests.UnlockSave(name=given["save"], live=live, dry_run=dry_run)
    elif verb in ("discard", "check"):
        kind = requests.UnlockDiscard if verb == "discard" else requests.OverlayCheck
        yield kind(live=live, dry_run=dry_run)
    else:
        yield requests.Unlock(mode=UnlockMode(verb), live=live, dry_run=dry_run)


def _verb_of_its_own(name: str | None, given: Mapping[str, Any]) -> str | None:
    """Return the option that is a verb of its own, "development" for no option at all; None for an edit."""
    switched = [key for key in ("enable", "disable") if given[key] is not None]
    others = [key for key in (*_ACTIONS, *_FIELDS, "values", "when") if given[key]]
    others += ["priority"] if given["priority"] is not None else []  # which may be 0
    asked = [key for key in _VERBS if given[key] not in (None, False)]
    if not asked:
        return None if others or switched or name else UnlockMode.DEVELOPMENT
    verb = asked[0]
    beside = [key for key in (*asked[1:], *others, *switched) if not (verb == "restore" and key == "allow")]
    if name and verb in ("check", "cleanup"):
        raise click.UsageError(f"--{verb} is about all overlays")
    if beside:
        raise click.UsageError(f"--{verb} and --{beside[0].replace('_', '-')} exclude each other")
    return verb


@contextmanager
def _restore(
    name: str | None, given: Mapping[str, Any], live: requests.LiveOptions
) -> Iterator[requests.OverlayRestore]:
    """Give the request to bring overlays back: from a backup, which is opened, or from a commit."""
    source = given["restore"]
    is_path = not source.startswith("apt-ostree/") and ("/" in source or Path(source).exists())
    with options.open_files([source] if is_path else []) as files:
        yield requests.OverlayRestore(
            backup=files[0] if files else None,
            commit=None if files else source,
            name=name,
            allow=given["allow"],
            allow_unsigned=given["allow_unsigned"],
            live=live,
            dry_run=given["dry_run"],
        )


@contextmanager
def _destination(path: str) -> Iterator[OpenFile | None]:
    """Open where a backup goes; a new file replaces an old one when it is whole. "": the default place."""
    if not path:
        yield None
        return
    place = Path(path)
    if path.endswith("/") or place.is_dir():
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with options.open_files([str(place)]) as (directory,):
            yield directory
        return
    with openfiles.created(place) as file:
        yield file


def _put_backup(request: requests.OverlayBackup, _result: Mapping[str, Any]) -> None:
    """Give a backup that was written to a new file its name."""
    file = request.destination
    if file and not openfiles.is_directory(file):
        openfiles.put(file)


def _one_name(given: Mapping[str, Any]) -> str | None:
    """Return the name of the overlay that is meant: --enable=NAME and --name=NAME say the same."""
    found = {given[key] for key in ("name", "enable", "disable") if given[key]}
    if len(found) > 1:
        raise click.UsageError(f"one overlay at a time, please: {', '.join(sorted(found))}")
    return found.pop() if found else None


def _edit_overlay(
    name: str | None,
    given: Mapping[str, Any],
    edits: tuple[PathEdit, ...],
    live: requests.LiveOptions,
) -> requests.EditOverlay:
    """Return the request to make, edit, switch or remove one overlay."""
    if given["enable"] is not None and given["disable"] is not None:
        raise click.UsageError("--enable and --disable exclude each other")
    others = [key for key in _ACTIONS if key != "remove" and given[key]]
    if given["remove"] and others:
        raise click.UsageError(f"--remove and --{others[0].replace('_', '-')} exclude each other")
    definition = _definition(given)
    switched = given["enable"] is not None or given["disable"] is not None
    if not (definition.given or switched or any(given[key] for key in _ACTIONS)):
        raise click.UsageError("nothing is asked for; see the examples of 'apt-ostree usroverlay --help'")
    return requests.EditOverlay(
        name=name,
        create=given["create"],
        remove=given["remove"],
        enable=given["enable"] is not None if switched else None,
        rename=given["rename"],
        definition=definition,
        edits=edits,
        live=live,
        dry_run=given["dry_run"],
    )


def _definition(given: Mapping[str, Any]) -> requests.DefinitionEdit:
    """Return what is asked for about the overlay's definition."""
    return requests.DefinitionEdit(
        scope=Scope(given["scope"]) if given["scope"] else None,
        user=given["user"],
        priority=given["priority"],
        persistence=Persistence(given["persistence"]) if given["persistence"] else None,
        persists=given["persists"] or None,
        on_conflict=OnConflict(given["on_conflict"]) if given["on_conflict"] else None,
        inherits=given["inherits"] or None,
        when=given["when"] if given["create"] and given["when"] else None,
        values=dict(map(_pair, given["values"])) or None,
        allow=given["allow"] or None,
    )


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not (separator and key.isidentifier()):
        raise click.UsageError(f"--set needs KEY=VALUE, not {text!r}")
    return key, value


@contextmanager
def _edits(given: Mapping[str, Any]) -> Iterator[tuple[PathEdit, ...]]:
    """Give the edits of paths; a file to be modified without --from is opened in an editor."""
    paths = [(EditAction.ADD, path) for path in given["add"]]
    paths += [(EditAction.MODIFY, path) for path in given["modify"]]
    sources: Sequence[str] = given["sources"] or [""] * len(paths)
    if len(sources) != len(paths):
        raise click.UsageError(f"{len(paths)} paths take {len(paths)} --from, not {len(sources)}")
    removals = [(EditAction.REMOVE_FILE, path) for path in given["remove_file"]]
    removals += [(EditAction.DROP, path) for path in given["drop"]]
    with tempfile.TemporaryDirectory(prefix="apt-ostree-") as scratch, ExitStack() as opened:
        edits = []
        for number, ((action, path), name) in enumerate(zip(paths, sources, strict=True)):
            edited = action is EditAction.MODIFY and not name
            source = _from_editor(Path(path), Path(scratch, str(number))) if edited else name
            files = opened.enter_context(options.open_files([source] if source else []))
            edits.append(
                PathEdit(
                    action=action,
                    path=path,
                    source=files[0] if files else None,
                    mode=given["mode"],
                    owner=given["owner"],
                    template=given["template"],
                    when="" if given["create"] else given["when"] or "",
                )
            )
        yield (*edits, *(PathEdit(action=action, path=path) for action, path in removals))


def _from_editor(path: Path, copy: Path) -> str:
    """Let the user edit a copy of a file, and return where it is."""
    if not sys.stdin.isatty():
        raise UsageError(f"nothing says what {path} shall hold", hint="name a file with --from")
    if not path.is_file():
        raise UsageError(f"there is no file {path} to modify", hint="add it with --add")
    copy.write_bytes(path.read_bytes())
    click.edit(filename=str(copy), editor=os.environ.get("SUDO_EDITOR"))
    return str(copy)


def _read(name: str | None, given: Mapping[str, Any]) -> int:
    """List overlays, one's content, what is shown, or one's history."""
    query: Request
    lines: Callable[[Any], Iterator[str]]
    if given["as_diff"]:
        query, lines = queries.OverlayPaths(), _source_lines
    elif given["as_history"]:
        query, lines = queries.OverlayHistory(name=name), _history_lines
    elif name:
        query, lines = queries.OverlayContents(name=name), _content_lines
    else:
        query, lines = queries.Overlays(), _overlay_lines
    answer = options.answer(query)
    if given["as_json"]:
        render.result_json(answer)
    else:
        render.lines("\n".join(lines(answer)))
    return 0


def _overlay_lines(overlays: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not overlays:
        yield "There are no overlays."
        return
    yield from render.table(
        ("NAME", "PRIORITY", "STATE", "PERSISTENCE", "FILES", "SIZE"),
        [
            (
                row["id"] + (" *" if row["last"] else ""),
                str(row["priority"]),
                _state(row),
                row["persistence"],
                "?" if row["files"] is None else str(row["files"]),
                "?" if row["bytes"] is None else show_size(row["bytes"]),
            )
            for row in overlays
        ],
    )


def _state(row: Mapping[str, Any]) -> str:
    if row["bytes"] is None:
        return "damaged"
    if not row["enabled"]:
        return "disabled"
    return "shown" if row["shown"] else "empty" if not row["files"] else "not shown"


def _content_lines(overlay: Mapping[str, Any]) -> Iterator[str]:
    yield f"{overlay['id']} (priority {overlay['priority']}, {overlay['persistence']})"
    for row in overlay["paths"]:
        notes = [note for note in ("template" if row["template"] else "", row["when"]) if note]
        yield f"  {row['kind']:9}{row['path']}" + (f" ({', '.join(notes)})" if notes else "")


def _source_lines(paths: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not paths:
        yield "No overlay shows anything."
    for row in paths:
        hides = f", hides {', '.join(row['hides'])}" if row["hides"] else ""
        yield f"{row['kind']:9}{row['path']} ({row['overlay']}{hides})"


def _history_lines(commits: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in commits:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["timestamp"]))
        yield f"{row['commit'][:12]}  {when}  {row['subject']}" + (f" ({row['note']})" if row["note"] else "")
