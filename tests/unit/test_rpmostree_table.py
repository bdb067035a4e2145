"""docs/rpm-ostree.md is true of the command line, the status and the exit codes, and leaves nothing out."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import pytest

from apt_ostree import errors
from apt_ostree.cli import main
from apt_ostree.model.deployment import Deployment
from apt_ostree.model.origin import Origin
from apt_ostree.model.package import PackageDiff
from apt_ostree.model.status import Commit, DeploymentStatus, Live, Status
from apt_ostree.model.verdict import Return

PAGE = Path(__file__).parents[2] / "docs" / "rpm-ostree.md"
HERE, NOT_HERE = {"same", "differs"}, {"none", "missing"}
OF_ALL = "Options of all verbs"
BEYOND_VERBS, BEYOND_OPTIONS = "Further verbs", "Further options"
BEYOND_CODES, BEYOND_KEYS = "Further exit codes", "Further keys"


@dataclass(frozen=True)
class Row:
    """A row of a table.

    section: the heading above it.
    kind: the heading of the first column.
    names: what the first column has in backquotes.
    state: one of HERE or NOT_HERE, in a table that compares.
    """

    section: str
    kind: str
    names: tuple[str, ...]
    state: str = ""
    remark: str = ""

    @property
    def is_option(self) -> bool:
        return self.names[0].startswith("-")


def rows(text: str) -> Iterator[Row]:
    section = kind = ""
    for line in text.splitlines():
        if line.startswith("#"):
            section = line.lstrip("#").strip()
        if not line.startswith("|"):
            kind = ""
            continue
        cells = [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]
        if not kind:
            kind = cells[0]
        elif set(cells[0]) != {"-"}:
            yield Row(section, kind, tuple(re.findall(r"`([^`]+)`", cells[0])), *cells[1:])


ROWS = tuple(rows(PAGE.read_text()))
TABLE = tuple(row for row in ROWS if row.kind == "rpm-ostree")
COMPARED = tuple(row for row in ROWS if row.kind in ("rpm-ostree", "key", "exit code"))


def beyond(section: str) -> set[str]:
    """Return what the page says that apt-ostree has beyond rpm-ostree."""
    return {name for row in ROWS if row.kind == "apt-ostree" and row.section == section for name in row.names}


# --- the command line


def walk(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield a command and those below it, hidden ones and other names, too."""
    yield command, context
    if isinstance(command, click.Group):
        unlisted = () if context.parent else (*main.HIDDEN, *main.ALIASES)
        for name in (*command.list_commands(context), *unlisted):
            inner = command.get_command(context, name)
            assert inner is not None, name
            yield from walk(inner, click.Context(inner, info_name=name, parent=context))


def read_command_line() -> tuple[dict[str, set[str]], set[str]]:
    """Return the spellings of the options of each command, and the commands that do something.

    "" is the program. Of several names of one command, the second set has the first.
    """
    program = main.apt_ostree
    root = click.Context(program, info_name="apt-ostree", **program.context_settings)
    options, does, seen = {}, set(), set()
    for command, context in walk(program, root):
        path = context.command_path.removeprefix("apt-ostree").strip()
        params = [param for param in command.get_params(context) if isinstance(param, click.Option)]
        options[path] = {name for param in params for name in (*param.opts, *param.secondary_opts)}
        is_plain = not isinstance(command, click.Group) or command.invoke_without_command
        if is_plain and id(command) not in seen:
            does.add(path)
        seen.add(id(command))
    return options, does


COMMANDS, DOES = read_command_line()


def exact(table: tuple[Row, ...]) -> set[tuple[str, str]]:
    """Return the (verb, option) that have a row of their own."""
    own = {(row.section, name) for row in table if row.is_option for name in row.names}
    return own | {(verb, option) for verb, _, option in map(split, beyond(BEYOND_OPTIONS)) if verb}


def split(name: str) -> tuple[str, str, str]:
    """Split VERB OPTION; the verb may be absent, and have two words."""
    return name.rpartition(" ")


def is_here(table: tuple[Row, ...], row: Row, name: str) -> bool:
    """Return whether apt-ostree has what a row of the table is about."""
    if not row.is_option:
        return name in COMMANDS
    if row.section != OF_ALL:
        return name in COMMANDS.get(row.section, ())
    other = exact(table) - {(OF_ALL, name)}
    verbs = [verb for verb in DOES - beyond(BEYOND_VERBS) if (verb, name) not in other]
    enough = all if row.state in HERE else any
    return name in COMMANDS[""] or enough(name in COMMANDS[verb] for verb in verbs)


def wrong(table: tuple[Row, ...]) -> list[str]:
    """Return the rows that are not true."""
    return [
        f"{row.section}: {name} is {row.state}"
        for row in table
        for name in row.names
        if is_here(table, row, name) != (row.state in HERE)
    ]


def left_out(table: tuple[Row, ...]) -> list[str]:
    """Return the verbs and options of apt-ostree that the page does not name."""
    verbs = {"", *(name for row in table if not row.is_option for name in row.names)}
    own, anywhere = exact(table), {name for name in beyond(BEYOND_OPTIONS) if " " not in name}
    anywhere |= {name for row in table if row.section == OF_ALL and row.state in HERE for name in row.names}
    found = []
    for verb in ("", *sorted(DOES - beyond(BEYOND_VERBS))):
        if verb not in verbs:
            found.append(verb)
        missing = {name for name in COMMANDS[verb] if (verb, name) not in own} - anywhere
        found += [f"{verb} {name}" for name in sorted(missing)]
    return found


def test_each_row_says_one_of_four_words_and_why():
    assert {row.state for row in COMPARED} == HERE | NOT_HERE
    assert not [row for row in COMPARED if not row.names]
    assert not [row for row in COMPARED if row.state in ("differs", "none") and not row.remark]


def test_nothing_has_two_rows():
    places = Counter((row.section if row.is_option else "", name) for row in TABLE for name in row.names)
    assert not [place for place, count in places.items() if count > 1]


def test_options_stand_below_verbs():
    verbs = {OF_ALL, *(name for row in TABLE if not row.is_option for name in row.names)}
    assert {row.section for row in TABLE if row.is_option} <= verbs


def test_the_table_is_true_of_the_command_line():
    assert len(TABLE) > 200
    assert wrong(TABLE) == []


def test_the_command_line_is_in_the_table():
    assert left_out(TABLE) == []


def test_what_is_beyond_rpm_ostree_is_there():
    assert beyond(BEYOND_VERBS) <= COMMANDS.keys()
    everywhere = {option for options in COMMANDS.values() for option in options}
    for name in beyond(BEYOND_OPTIONS):
        verb, _, option = split(name)
        assert option in (COMMANDS[verb] if verb else everywhere), name


MADE_UP = [
    Row("install", "rpm-ostree", ("--no-such-option",), "same"),
    Row("install", "rpm-ostree", ("--no-such-option",), "differs", "for a test"),
    Row("install", "rpm-ostree", ("-n", "--dryrun"), "same"),
    Row("install", "rpm-ostree", ("--idempotent",), "missing"),
    Row("compose tree", "rpm-ostree", ("--version",), "none", "for a test"),
    Row("initramfs-etc", "rpm-ostree", ("--track",), "missing"),
    Row("Packages", "rpm-ostree", ("no-such-verb",), "same"),
    Row("Packages", "rpm-ostree", ("override replace",), "missing"),
    Row("Packages", "rpm-ostree", ("unlock",), "missing"),
    Row(OF_ALL, "rpm-ostree", ("--no-wait",), "missing"),
    Row(OF_ALL, "rpm-ostree", ("--no-wait",), "same"),
]


@pytest.mark.parametrize("made_up", MADE_UP)
def test_a_row_that_is_not_true_is_found(made_up):
    assert len({*wrong((*TABLE, made_up))} - {*wrong(TABLE)}) == 1


@pytest.mark.parametrize(
    ("section", "name"),
    [("install", "--idempotent"), ("rollback", "--reboot"), (OF_ALL, "--quiet"), ("Packages", "uninstall")],
)
def test_a_row_that_is_gone_is_missed(section, name):
    fewer = tuple(
        replace(row, names=tuple(one for one in row.names if (row.section, one) != (section, name)))
        for row in TABLE
    )
    assert left_out(tuple(row for row in fewer if row.names))


# --- the status


def keys_of_status() -> dict[str, set[str]]:
    """Return the keys of a status in which nothing is left out, by the heading of their table."""
    flags = {"booted": True, "staged": True, "pinned": False, "unlocked": "none", "locked": True}
    origin = Origin(initramfs=("-v",), initramfs_etc=("/etc/a",), image="image", image_digest="digest")
    deployment = Deployment(0, "debian", "c" * 64, 0, "deploy", origin, **flags)
    described = DeploymentStatus(
        deployment,
        Commit("c" * 64, 0, "2"),
        base=Commit("b" * 64, 0, "1", {"ostree.endoflife": "follow debian/14"}),
        diff=PackageDiff(),
        live=Live("d" * 64, 1, unfinished="e" * 64),
        mounted_over="sysext",
        remote_error="it is gone",
        back=Return("left", "to", 0.0, "why"),
    )
    found = Status((described,)).to_json()
    return {"Keys of the document": set(found), "Keys of a deployment": set(found["deployments"][0])}


def test_the_table_is_true_of_the_status():
    keys = keys_of_status()
    listed = [(row, name) for row in ROWS if row.kind == "key" for name in row.names]
    assert {row.section for row, _name in listed} == keys.keys()
    assert not [name for row, name in listed if (name in keys[row.section]) != (row.state in HERE)]


def test_the_keys_of_the_status_are_in_the_table():
    keys = set().union(*keys_of_status().values())
    compared = {name for row in ROWS if row.kind == "key" for name in row.names}
    assert keys - compared == beyond(BEYOND_KEYS)


# --- the exit codes


def test_the_exit_codes_are_in_the_table():
    classes = [cls for cls in vars(errors).values() if isinstance(cls, type)]
    codes = {cls.exit_code for cls in classes if issubclass(cls, errors.AptOstreeError)}
    compared = [row for row in ROWS if row.kind == "exit code"]
    listed = {int(name) for row in compared if row.state in HERE for name in row.names}
    assert {row.state for row in compared} <= HERE
    assert listed | set(map(int, beyond(BEYOND_CODES))) == {0, errors.EXIT_UNCHANGED, *codes}
    assert not listed & set(map(int, beyond(BEYOND_CODES)))
