"""What docs/rpm-ostree.md says is there is run by a test on a machine.

This reads the tests' sources. It sees that an option is given, and not what the test makes of it.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import pytest

from apt_ostree.cli import main
from tests.unit.test_rpmostree_table import HERE, OF_ALL, ROWS, TABLE, Row, walk

TESTS = Path(__file__).parents[1]
SYSTEM = tuple(ast.parse(path.read_text()) for path in sorted((TESTS / "system").glob("*.py")))
#: What composes needs no machine. The tests in these files run nothing else, with the verb in a helper.
COMPOSING = tuple(ast.parse(path.read_text()) for path in (TESTS / "integration").glob("test_compose*.py"))
PROGRAMS = ("apt-ostree", "rpm-ostree", "apt_ostree")


def text_of(node: ast.AST) -> str:
    """Return the text of a literal, without what is filled in; empty for all else."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    values = [part.value for part in parts if isinstance(part, ast.Constant)]
    return "".join(value for value in values if isinstance(value, str))


def command_lines(tree: ast.AST) -> Iterator[list[str]]:
    """Yield what may be command lines: the words of each call and list, and each command of a script."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call | ast.Tuple | ast.List):
            words = node.args if isinstance(node, ast.Call) else node.elts
            yield [text for word in words if (text := text_of(word))]
        else:
            for command in re.split(r"[;&|()\n]+", text_of(node)):
                yield command.split() if set(PROGRAMS) & set(command.split()) else []


def own_words(words: list[str]) -> list[str]:
    """Return the words behind the program, if it is named, the verb first."""
    behind = max((number + 1 for number, word in enumerate(words) if word in PROGRAMS), default=0)
    return sorted(words[behind:], key=lambda word: word.startswith("-"))


def lines_of(trees: Iterable[ast.AST]) -> list[list[str]]:
    return [words for tree in trees for line in command_lines(tree) if (words := own_words(line))]


LINES, OF_COMPOSE = lines_of(SYSTEM), lines_of(COMPOSING)


def read_spellings() -> dict[tuple[str, str], frozenset[str]]:
    """Return the spellings of the option (verb, name)."""
    program = main.apt_ostree
    root = click.Context(program, info_name="apt-ostree", **program.context_settings)
    return {
        (context.command_path.removeprefix("apt-ostree").strip(), name): frozenset(param.opts)
        for command, context in walk(program, root)
        for param in command.get_params(context)
        for name in param.opts
    }


SPELLINGS = read_spellings()


def names_of(verb: str) -> list[list[str]]:
    """Return the words of a verb, by each of its names."""
    first, *rest = verb.split()
    return [[name, *rest] for name in (first, *(a for a, of in main.ALIASES.items() if of == first))]


def is_run(row: Row, name: str) -> bool:
    """Return whether a command line has what a row is about, by this name."""
    composes = row.section.lower().startswith("compose")
    lines = OF_COMPOSE if composes else LINES
    if not row.is_option:
        words = [name.split(), *([name.split()[1:]] if composes and " " in name else [])]
        return any(line[: len(one)] == one for line in lines for one in words)
    verbs = [[]] if composes or row.section == OF_ALL else names_of(row.section)
    same = SPELLINGS.get((row.section, name), {name}) & {*row.names} or {*row.names}
    return any(
        word.partition("=")[0] in same
        for line in lines
        for verb in verbs
        if line[: len(verb)] == verb
        for word in line[len(verb) :]
    )


def not_run(rows: tuple[Row, ...]) -> list[str]:
    here = [row for row in rows if row.state in HERE]
    return [f"{row.section}: {name}" for row in here for name in row.names if not is_run(row, name)]


def test_verbs_and_options_are_run_on_a_machine():
    assert len(LINES) > 1000
    assert not_run(TABLE) == []


def test_keys_of_the_status_are_looked_at_on_a_machine():
    texts = {text_of(node) for tree in SYSTEM for node in ast.walk(tree)}
    keys = [name for row in ROWS if row.kind == "key" and row.state in HERE for name in row.names]
    assert [key for key in keys if key not in texts] == []


def test_exit_codes_are_seen_on_a_machine():
    words = [node for tree in SYSTEM for node in ast.walk(tree) if isinstance(node, ast.keyword)]
    seen = {w.value.value for w in words if w.arg == "code" and isinstance(w.value, ast.Constant)}
    codes = {int(name) for row in ROWS if row.kind == "exit code" for name in row.names}
    assert codes - seen == {0}  # that is what each other command has to end with


@pytest.mark.parametrize(
    "row",
    [
        Row("install", "rpm-ostree", ("--not-there",), "same"),
        Row("initramfs-etc", "rpm-ostree", ("--track", "--not-there"), "same"),
        Row("status", "rpm-ostree", ("--idempotent",), "differs", "an option of others only"),
        Row("Packages", "rpm-ostree", ("no-such-verb",), "same"),
        Row("Other names", "rpm-ostree", ("override no-such-verb",), "same"),
    ],
)
def test_a_row_that_no_test_runs_is_found(row):
    assert len(not_run((row,))) == 1
