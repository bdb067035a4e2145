#!/usr/bin/python3
"""Writes the generated parts of man/apt-ostree.8: the commands with their options, and the exit codes.

They come from what the command line itself says, so that the page cannot differ from it.

    tools/man_commands.py            rewrite the page
    tools/man_commands.py --check    exit 1 if the page is not up to date
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "man" / "apt-ostree.8"
sys.path.insert(0, str(ROOT / "src"))
sys.dont_write_bytecode = True

import click  # noqa: E402

from apt_ostree import errors  # noqa: E402
from apt_ostree.cli.main import apt_ostree  # noqa: E402


def escape(text: str) -> str:
    """Make plain text safe for roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def paragraphs(text: str) -> Iterator[str]:
    """Yield the lines of a click help text; `\\b` at a paragraph's start keeps its line ends."""
    for number, paragraph in enumerate(inspect.cleandoc(text).split("\n\n")):
        if number:
            yield ".PP"
        if paragraph.startswith("\b"):
            yield from (".nf", escape(paragraph.removeprefix("\b").strip("\n")), ".fi")
        else:
            yield escape(" ".join(paragraph.split()))


def options(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield a tagged paragraph for each option that is the command's own."""
    for param in command.params:
        record = param.get_help_record(context)
        if record is not None:
            yield ".TP"
            yield f".B {escape(record[0])}"
            yield escape(" ".join(record[1].split())) or "\\&"


def commands(group: click.Group, context: click.Context) -> Iterator[str]:
    """Yield the description of each command of a group, and of theirs."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        if command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield from commands(command, inner)
            continue
        usage = " ".join(command.collect_usage_pieces(inner))
        yield f".SS {escape(inner.command_path.removeprefix('apt-ostree '))} {escape(usage)}"
        yield from paragraphs(command.help or "")
        yield from options(command, inner)


def exit_codes() -> Iterator[str]:
    """Yield the exit codes and their meaning, from the error classes."""
    texts: dict[int, list[str]] = {0: ["Success."], errors.EXIT_UNCHANGED: []}
    texts[errors.EXIT_UNCHANGED].append("Nothing to do, where --unchanged-exit-77 was given.")
    for cls in (errors.AptOstreeError, *errors.AptOstreeError.__subclasses__()):
        text = (cls.__doc__ or "").partition("\n")[0]
        if cls is errors.AptOstreeError:
            text = "An error in the program itself."
        texts.setdefault(cls.exit_code, []).append(text)
    for code, lines in sorted(texts.items()):
        yield from (".TP", f".B {code}", escape(" ".join(lines)))


def generated(page: str) -> str:
    """Return the page with the text between its markers made anew."""
    parts = {
        "COMMANDS": commands(apt_ostree, click.Context(apt_ostree, info_name="apt-ostree")),
        "EXIT CODES": exit_codes(),
    }
    for name, lines in parts.items():
        begin, end = f'.\\" BEGIN {name} (tools/man_commands.py)\n', f'.\\" END {name}\n'
        head, _, rest = page.partition(begin)
        _, found, tail = rest.partition(end)
        if not found:
            raise SystemExit(f"{PAGE.name} has no markers for {name}")
        page = head + begin + "".join(f"{line}\n" for line in lines) + end + tail
    return page


def main() -> int:
    """Rewrite or check the page."""
    old = PAGE.read_text()
    new = generated(old)
    if sys.argv[1:] == ["--check"]:
        if old != new:
            print(f"man/{PAGE.name} is not up to date: run 'make man'", file=sys.stderr)
        return int(old != new)
    if old != new:
        PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
