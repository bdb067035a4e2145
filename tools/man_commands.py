#!/usr/bin/python3
"""Writes the generated parts of man/apt-ostree.8, and a page for each command.

They come from what the command line itself says, so that the pages cannot differ from it.

    tools/man_commands.py                      rewrite the page: the list of commands, and the exit codes
    tools/man_commands.py --check              exit 1 if the page is not up to date
    tools/man_commands.py --verbs DIRECTORY    write the pages of the commands
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

from apt_ostree import __version__, errors  # noqa: E402
from apt_ostree.cli.main import COMMANDS, apt_ostree  # noqa: E402


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


def top_commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Yield the name of each command that help lists, the command and its context."""
    context = click.Context(apt_ostree, info_name="apt-ostree")
    for name in apt_ostree.list_commands(context):
        command = apt_ostree.get_command(context, name)
        assert command is not None, name
        yield name, command, click.Context(command, info_name=name, parent=context)


def commands() -> Iterator[str]:
    """Yield a tagged paragraph for each command: its page, and its line in --help."""
    for name, _command, _context in top_commands():
        yield from (".TP", f".BR apt\\-ostree\\-{escape(name)} (8)", f"{escape(COMMANDS[name][2])}.")


def leaves(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield a command, or those of a group; a group that does something itself, too."""
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None, name
            if not inner.hidden:
                yield from leaves(inner, click.Context(inner, info_name=name, parent=context))


def verb_page(name: str, command: click.Command, context: click.Context) -> str:
    """Return the manual page of a command."""
    page = [
        f'.TH APT\\-OSTREE\\-{escape(name.upper())} 8 "" "apt\\-ostree {__version__}" "System Administration"'
    ]
    page += [
        ".SH NAME",
        f"apt\\-ostree\\-{escape(name)} \\- {escape(lowered(COMMANDS[name][2]))}",
        ".SH SYNOPSIS",
    ]
    parts = list(leaves(command, context))
    for number, (inner, place) in enumerate(parts):
        usage = " ".join(inner.collect_usage_pieces(place))
        page += [*([".br"] if number else []), f".B {escape(place.command_path)}", escape(usage)]
    page.append(".SH DESCRIPTION")
    for inner, place in parts:
        page += [f".SS {escape(place.command_path)}"] if len(parts) > 1 else []
        page += [*paragraphs(inner.help or ""), *options(inner, place)]
    examples = command.epilog or ""
    if examples:
        page += [".SH EXAMPLES", ".nf", *map(escape, examples.removeprefix("Examples: ").split("; ")), ".fi"]
    page += [
        ".SH EXIT STATUS",
        *exit_codes(),
        ".SH SEE ALSO",
        ".BR apt\\-ostree (8),",
        ".BR apt\\-ostree.conf (5)",
    ]
    return "\n".join(page) + "\n"


def lowered(text: str) -> str:
    """Return a text that begins with a small letter."""
    return text[:1].lower() + text[1:]


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
        "COMMANDS": commands(),
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
    """Rewrite or check the page, or write those of the commands."""
    if sys.argv[1:2] == ["--verbs"]:
        for name, command, context in top_commands():
            Path(sys.argv[2], f"apt-ostree-{name}.8").write_text(verb_page(name, command, context))
        return 0
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
