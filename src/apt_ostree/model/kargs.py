"""Kernel arguments: how a command line is split, and how it is changed.

A kernel argument is KEY or KEY=VALUE; a value in double quotes may contain spaces, see
Documentation/admin-guide/kernel-parameters.rst of Linux.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from apt_ostree.errors import UsageError
from apt_ostree.model.grubenv import ARGUMENT

Arguments = tuple[str, ...]
_ARGUMENT = re.compile(r'(?:[^\s"]|"[^"]*")+')
#: What ostree adds for each deployment.
_OF_OSTREE = "ostree"
#: That, and what the boot loader adds.
_OF_THE_BOOT = ("BOOT_IMAGE", "initrd", _OF_OSTREE, ARGUMENT)


def split(line: str) -> Arguments:
    """Return the arguments of a command line; a quote that is not closed is an ordinary character."""
    closed = line if line.count('"') % 2 == 0 else line.replace('"', "")
    return tuple(_ARGUMENT.findall(closed))


def read_edited(text: str) -> Arguments:
    """Return the arguments of a text from an editor, in which lines that begin with # are comments.

    Raises UsageError if there are none, and if one is ostree's own.
    """
    lines = (line.strip() for line in text.splitlines())
    arguments = tuple(one for line in lines if not line.startswith("#") for one in split(line))
    if not arguments:
        raise UsageError("the text has no kernel arguments", hint="the kernel needs some, such as root=")
    if _OF_OSTREE in map(key_of, arguments):
        raise UsageError(
            f"the argument {_OF_OSTREE}= is not changed", hint="ostree sets it for each deployment"
        )
    return arguments


def own(arguments: Iterable[str]) -> Arguments:
    """Return the arguments without those of one boot."""
    return tuple(argument for argument in arguments if key_of(argument) not in _OF_THE_BOOT)


def key_of(argument: str) -> str:
    """Return the key of an argument."""
    return argument.partition("=")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Changes of kernel arguments, in the order in which they are made.

    delete: KEY, if there is only one such argument, or KEY=VALUE; it has to be there.
    delete_if_present: arguments to remove as they are given, each if it is there.
    replace: KEY=VALUE, if there is only one argument of the key, or KEY=OLD=NEW.
    append: arguments to add.
    append_if_missing: the same, unless they are there.
    """

    delete: Arguments = ()
    delete_if_present: Arguments = ()
    replace: Arguments = ()
    append: Arguments = ()
    append_if_missing: Arguments = ()

    def __post_init__(self) -> None:
        wrong = [
            one for one in (*self.replace, *self.append, *self.append_if_missing) if split(one) != (one,)
        ]
        if wrong:
            raise ValueError(f"expected one kernel argument, got {wrong[0]!r}; put quotes around spaces")

    @classmethod
    def split(
        cls,
        *,
        delete: Iterable[str] = (),
        replace: Iterable[str] = (),
        append: Iterable[str] = (),
        **exact: Arguments,
    ) -> Changes:
        """Return the changes of texts with several arguments each, as rpm-ostree takes them.

        exact: the other fields, which have one argument in each text. Raises UsageError for more.
        """
        try:
            return cls(delete=_each(delete), replace=_each(replace), append=_each(append), **exact)
        except ValueError as error:
            raise UsageError(str(error)) from error

    def apply(self, arguments: Sequence[str]) -> Arguments:
        """Return the changed arguments; UsageError names an argument that is not there, or not alone."""
        result = list(arguments)
        for argument in self.delete:
            del result[_place(result, argument)]
        for argument in self.delete_if_present:
            if argument in result:
                result.remove(argument)
        for change in self.replace:
            key = key_of(change)
            old = next((one for one in result if key_of(one) == key and change.startswith(f"{one}=")), "")
            exact = old if "=" in old else ""
            new = f"{key}={change.removeprefix(f'{exact}=')}" if exact else change
            result[_place(result, exact or key)] = new
        result += self.append
        result += [one for one in dict.fromkeys(self.append_if_missing) if one not in result]
        return tuple(result)


def _each(texts: Iterable[str]) -> Arguments:
    return tuple(argument for text in texts for argument in split(text))


def _place(arguments: Sequence[str], wanted: str) -> int:
    """Return the index of an argument, which is named by its key if it is the only one of the key."""
    if wanted in arguments:
        return arguments.index(wanted)
    same = [one for one in arguments if key_of(one) == wanted]
    if len(same) > 1:
        raise UsageError(
            f"there are {len(same)} kernel arguments {wanted!r}: {' '.join(same)}",
            hint="name one with its value",
        )
    if not same:
        raise UsageError(
            f"there is no kernel argument {wanted!r}", hint=f"there are: {' '.join(arguments) or 'none'}"
        )
    return arguments.index(same[0])
