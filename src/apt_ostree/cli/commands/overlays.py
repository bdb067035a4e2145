"""usroverlay: named overlays of files, and rpm-ostree's unlocked /usr."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from apt_ostree.cli import options, render
from apt_ostree.errors import AptOstreeError, UsageError
from apt_ostree.model.sizes import show_size


def _names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of an overlay."""
    from apt_ostree.core.overlays import listing

    try:
        return [name for name in listing.names() if name.startswith(incomplete)]
    except AptOstreeError:
        return []


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
@options.json_output
@options.quiet
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
    common = {key: given[key] for key in ("dry_run", "restart_services", "confirm_within", "force")}
    interactive = sys.stdin.isatty() and not given["as_json"]
    common["confirm"] = interactive and not given["assumeyes"] and not given["dry_run"]
    if found := _other_verb(name, given):
        verb, arguments, taken = found
        return options.run_verb(verb, {**arguments, **{key: common[key] for key in taken}}, given)
    words = _words(name, given)
    with tempfile.TemporaryDirectory(prefix="apt-ostree-") as scratch:
        arguments = {**words, **common, "edits": _edits(given, Path(scratch)), "verb": _verb(name, given)}
        return options.run_verb("usroverlay", arguments, given)


#: Options that ask for something to be done.
_ACTIONS = ("create", "add", "modify", "remove_file", "drop", "remove", "rename")
#: Option -> field of the overlay's definition.
_FIELDS = {
    "scope": "scope",
    "user": "user",
    "persistence": "persistence",
    "persists": "persists",
    "on_conflict": "on_conflict",
    "inherits": "inherits",
    "allow": "allow",
}


_LIVE = ("dry_run", "restart_services", "confirm_within", "force", "confirm")
#: Options with a verb of their own -> the verb, and which of the common options it takes.
_VERBS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "transient": ("unlock", _LIVE),
    "hotfix": ("unlock", _LIVE),
    "save": ("unlock-save", _LIVE),
    "discard": ("unlock-discard", _LIVE),
    "backup": ("overlay-backup", ()),
    "restore": ("overlay-restore", _LIVE),
    "check": ("overlay-check", _LIVE),
    "cleanup": ("overlay-cleanup", ("dry_run",)),
}


def _other_verb(
    name: str | None, given: Mapping[str, Any]
) -> tuple[str, dict[str, Any], tuple[str, ...]] | None:
    """Return the verb, its arguments and the common ones it takes, where this is no edit of an overlay."""
    switched = [key for key in ("enable", "disable") if given[key] is not None]
    others = [key for key in (*_ACTIONS, *_FIELDS, "values", "when") if given[key]]
    others += ["priority"] if given["priority"] is not None else []  # which may be 0
    asked = [key for key in _VERBS if given[key] not in (None, False)]
    if not asked:
        return None if others or switched or name else ("unlock", {"mode": "development"}, _LIVE)
    what = asked[0]
    beside = [key for key in (*asked[1:], *others, *switched) if not (what == "restore" and key == "allow")]
    if name and what in ("check", "cleanup"):
        raise click.UsageError(f"--{what} is about all overlays")
    if beside:
        raise click.UsageError(f"--{what} and --{beside[0].replace('_', '-')} exclude each other")
    arguments: dict[str, Any] = {
        "transient": {"mode": "transient"},
        "hotfix": {"mode": "hotfix"},
        "save": {"name": given["save"]},
        "discard": {},
        "backup": {"name": name, "path": given["backup"] and _absolute(given["backup"])},
        "restore": {
            "source": _absolute(given["restore"]),
            "name": name,
            "allow": given["allow"],
            "allow_unsigned": given["allow_unsigned"],
        },
        "check": {},
        "cleanup": {key: given[key] for key in ("older_than", "keep", "larger_than", "archive")},
    }[what]
    return (*_VERBS[what][:1], arguments, _VERBS[what][1])


def _absolute(source: str | None) -> str | None:
    """Return the path of a file or directory made absolute; a commit stays as it is."""
    if source and not source.startswith("apt-ostree/") and ("/" in source or Path(source).exists()):
        return f"{Path(source).resolve()}{'/' if source.endswith('/') else ''}"
    return source


def _one_name(given: Mapping[str, Any]) -> str | None:
    """Return the name of the overlay that is meant: --enable=NAME and --name=NAME say the same."""
    found = {given[key] for key in ("name", "enable", "disable") if given[key]}
    if len(found) > 1:
        raise click.UsageError(f"one overlay at a time, please: {', '.join(sorted(found))}")
    return found.pop() if found else None


def _words(name: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is asked for, as the verb takes it."""
    if given["enable"] is not None and given["disable"] is not None:
        raise click.UsageError("--enable and --disable exclude each other")
    others = [key for key in _ACTIONS if key != "remove" and given[key]]
    if given["remove"] and others:
        raise click.UsageError(f"--remove and --{others[0].replace('_', '-')} exclude each other")
    changes: dict[str, Any] = {field: given[key] for key, field in _FIELDS.items() if given[key]}
    changes |= {"priority": given["priority"]} if given["priority"] is not None else {}
    changes |= {"when": given["when"]} if given["create"] and given["when"] else {}
    values = dict(_pair(word) for word in given["values"])
    changes |= {"values": values} if values else {}
    switched = given["enable"] is not None or given["disable"] is not None
    if not (changes or switched or any(given[key] for key in _ACTIONS)):
        raise click.UsageError("nothing is asked for; see the examples of 'apt-ostree usroverlay --help'")
    return {
        "name": name,
        "create": given["create"],
        "remove": given["remove"],
        "rename": given["rename"],
        "enable": given["enable"] is not None if switched else None,
        "changes": changes,
    }


def _pair(word: str) -> tuple[str, str]:
    key, separator, value = word.partition("=")
    if not (separator and key.isidentifier()):
        raise click.UsageError(f"--set needs KEY=VALUE, not {word!r}")
    return key, value


def _edits(given: Mapping[str, Any], scratch: Path) -> list[dict[str, Any]]:
    """Return the edits that are asked for; a file to be modified without --from is opened in an editor."""
    paths = [("add", path) for path in given["add"]] + [("modify", path) for path in given["modify"]]
    sources: Sequence[str] = given["sources"]
    if sources and len(sources) != len(paths):
        raise click.UsageError(f"{len(paths)} paths take {len(paths)} --from, not {len(sources)}")
    edits: list[dict[str, Any]] = []
    for number, (action, path) in enumerate(paths):
        source = str(Path(sources[number]).absolute()) if sources else ""
        if action == "modify" and not source:
            source = _from_editor(Path(path), scratch / str(number))
        row = {"action": action, "path": path, "source": source}
        row |= {key: given[key] for key in ("mode", "owner", "template")}
        edits.append(row | {"when": "" if given["create"] else given["when"] or ""})
    for action in ("remove_file", "drop"):
        edits += [{"action": action.replace("_", "-"), "path": path} for path in given[action]]
    return edits


def _from_editor(path: Path, copy: Path) -> str:
    """Let the user edit a copy of a file, and return where it is."""
    if not sys.stdin.isatty():
        raise UsageError(f"nothing says what {path} shall hold", hint="name a file with --from")
    if not path.is_file():
        raise UsageError(f"there is no file {path} to modify", hint="add it with --add")
    copy.write_bytes(path.read_bytes())
    click.edit(filename=str(copy), editor=os.environ.get("SUDO_EDITOR"))
    return str(copy)


def _verb(name: str | None, given: Mapping[str, Any]) -> str:
    """Return the command as the history shows it."""
    switches = [f"--{key.replace('_', '-')}" for key in ("create", "remove", "enable", "disable")
                if given[key] not in (None, False)]  # fmt: skip
    paths = [f"--{key.replace('_', '-')}={path}" for key in ("add", "modify", "remove_file", "drop")
             for path in given[key]]  # fmt: skip
    words = ["usroverlay", *([f"--name={name}"] if name else []), *switches, *paths]
    return " ".join(words)[:300]


def _read(name: str | None, given: Mapping[str, Any]) -> int:
    """List overlays, one's content, what is shown, or one's history."""
    from apt_ostree.core.overlays import listing

    found: Any
    lines: Callable[[Any], Iterator[str]]
    if given["as_diff"]:
        found, lines = listing.sources(), _source_lines
    elif given["as_history"]:
        found, lines = listing.history(name), _history_lines
    elif name:
        found, lines = listing.contents(name), _content_lines
    else:
        found, lines = listing.overlays(), _overlay_lines
    if given["as_json"]:
        render.result_json(found)
    else:
        render.lines("\n".join(lines(found)))
    return 0


def _overlay_lines(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not found:
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
            for row in found
        ],
    )


def _state(row: Mapping[str, Any]) -> str:
    if row["bytes"] is None:
        return "damaged"
    if not row["enabled"]:
        return "disabled"
    return "shown" if row["shown"] else "empty" if not row["files"] else "not shown"


def _content_lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"{found['id']} (priority {found['priority']}, {found['persistence']})"
    for row in found["paths"]:
        notes = [word for word in ("template" if row["template"] else "", row["when"]) if word]
        yield f"  {row['kind']:9}{row['path']}" + (f" ({', '.join(notes)})" if notes else "")


def _source_lines(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not found:
        yield "No overlay shows anything."
    for row in found:
        hides = f", hides {', '.join(row['hides'])}" if row["hides"] else ""
        yield f"{row['kind']:9}{row['path']} ({row['overlay']}{hides})"


def _history_lines(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in found:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["timestamp"]))
        yield f"{row['commit'][:12]}  {when}  {row['subject']}" + (f" ({row['note']})" if row["note"] else "")
