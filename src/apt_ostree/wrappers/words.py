"""Splits the command line of a tool into options and words. It knows no tool."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


class Option(NamedTuple):
    """An option as it was given: `-y`, `--option` with its value; the letters of `-qy` are two options."""

    name: str
    value: str | None = None


class Line(NamedTuple):
    """A command line: all options and all words, each in their order."""

    options: tuple[Option, ...]
    words: tuple[str, ...]


def split(arguments: Sequence[str], valued: Collection[str], *, options_first: bool) -> Line:
    """Return the options and the words of a command line; what follows `--` are words.

    valued: the options that have a value, which may be the next argument.
    options_first: what follows the first word are words, too, as in getopt(3) with POSIXLY_CORRECT.
    """
    options: list[Option] = []
    words: list[str] = []
    rest = list(reversed(arguments))
    while rest:
        argument = rest.pop()
        if argument == "--" or not _is_option(argument):
            words += [] if argument == "--" else [argument]
            if argument == "--" or options_first:
                words += reversed(rest)
                break
            continue
        options += _long(argument) if argument.startswith("--") else _letters(argument, valued)
        last = options[-1]
        if last.value is None and last.name in valued and rest:
            options[-1] = Option(last.name, rest.pop())
    return Line(tuple(options), tuple(words))


def _is_option(argument: str) -> bool:
    return len(argument) > 1 and argument.startswith("-")


def _long(argument: str) -> Iterator[Option]:
    name, equals, value = argument.partition("=")
    yield Option(name, value if equals else None)


def _letters(argument: str, valued: Collection[str]) -> Iterator[Option]:
    """Yield the options of an argument such as -qy, -q2, -oKEY=VALUE or -f=TEXT."""
    for place, letter in enumerate(argument[1:], start=2):
        name, rest = f"-{letter}", argument[place:]
        if rest.startswith("=") or (rest and name in valued) or (rest and rest.isdigit()):
            yield Option(name, rest.removeprefix("="))
            return
        yield Option(name)
