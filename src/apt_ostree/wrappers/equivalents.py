"""What apt-ostree does instead of a change that a tool was asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from apt_ostree.wrappers.words import Option, word_set


class Asked(NamedTuple):
    """A change that a tool was asked for.

    tool: such as apt-get.
    arguments: all of the command line.
    options: without the action, if this is an option.
    words: without the action, if this is a word.
    """

    tool: str
    arguments: tuple[str, ...]
    options: tuple[Option, ...]
    words: tuple[str, ...]


class Equivalent(NamedTuple):
    """What to do instead.

    command: the arguments of apt-ostree; empty: there is no such command.
    note: a sentence for the user, beside or instead of the command.
    quietly: further arguments, with which it takes for a success what apt and dpkg do.
    exact: whether the command does what was asked for, so that it may be run without asking.
    holds: whether there is nothing to do, because what was asked for holds already.
    """

    command: tuple[str, ...] = ()
    note: str = ""
    quietly: tuple[str, ...] = ()
    exact: bool = True
    holds: bool = False


Change = Callable[[Asked], Equivalent]

#: Options that apt-ostree has, too.
_SAME = {"-y": "-y", "--yes": "-y", "--assume-yes": "-y", "-q": "-q", "--quiet": "-q"}
#: Further ones for packages of archives that are installed.
_SAME_OF_INSTALL = {"--install-recommends": "--recommends", "--no-install-recommends": "--no-recommends"}
#: Options that ask for what apt-ostree does anyway, or for another look of the output.
_ALREADY = word_set(
    "-V --verbose-versions -u --show-upgraded --show-progress --list-columns -f --fix-broken "
    "--purge --autoremove --auto-remove --new-pkgs --with-new-pkgs "
    "-B --auto-deconfigure -E --skip-same-version --no-debsig --no-pager"
)
#: Those of dpkg that apt may have as `-o Dpkg::Options::=OPTION`.
_ALREADY_DPKG = word_set("--force-confold --force-confdef")
#: NAME[:ARCHITECTURE][=VERSION] (deb-control(5)).
_NAME = r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?(=[^\s=]+)?"


def install(asked: Asked) -> Equivalent:
    """Return the command for packages and .deb files; NAME- is one to remove for apt, and a file for dpkg."""
    if not asked.words:
        return _nothing(asked, "a deployment is built whole")
    removed = [word for word in asked.words if asked.tool != "dpkg" and _is_removal(word)]
    added = [word for word in asked.words if word not in removed]
    if not added:
        return _packages("uninstall", [word[:-1] for word in removed], asked)
    instead = _packages("install", added, asked)
    if removed:
        together = [f"--uninstall={word[:-1]}" for word in removed]
        return instead._replace(command=(*instead.command, *together))
    # A removal is not idempotent: a package of the base would stay, and that would be a success.
    return instead._replace(quietly=("--idempotent",))


def uninstall(asked: Asked) -> Equivalent:
    """Return the command that removes packages."""
    if not asked.words:
        return _nothing(asked, "'apt-ostree uninstall' also removes what nothing needs any more")
    return _packages("uninstall", asked.words, asked)


def upgrade(asked: Asked) -> Equivalent:
    """Return the command for all packages; for some there is none."""
    if asked.words:
        return Equivalent(("upgrade",), "It upgrades the base and all packages, not some.", exact=False)
    return _packages("upgrade", (), asked)


def run(asked: Asked) -> Equivalent:
    """Return the command that runs the tool itself in the next deployment."""
    return Equivalent(("run", asked.tool, *asked.arguments))


def reconfigure(asked: Asked) -> Equivalent:
    """Return the command that runs the scripts in the next deployment, with the answers that debconf has.

    It is for a tool that has failed, maybe for another reason, such as a mistake or a question not answered.
    """
    note = "There it asks nothing, and takes the answers that debconf has."
    return run(asked)._replace(note=note, exact=False)


def none(note: str) -> Change:
    """Return a change for which apt-ostree has no command, with what to say."""
    return lambda _asked: Equivalent(note=note)


def choose_alternative(asked: Asked) -> Equivalent:
    """Return how to choose an alternative without the question, which a build cannot ask."""
    name = asked.words[0] if asked.words else "NAME"
    command = ("run", asked.tool, "--set", name, "PATH")
    return Equivalent(command, f"'{asked.tool} --list {name}' shows the paths.", exact=False)


def _nothing(asked: Asked, reason: str) -> Equivalent:
    """Return that there is nothing to do; dpkg needs packages, and would complain."""
    return Equivalent(note=f"There is nothing to do: {reason}.", holds=asked.tool != "dpkg")


def _packages(verb: str, words: Sequence[str], asked: Asked) -> Equivalent:
    """Return a command for packages; it is not exact if a word or an option means nothing to apt-ostree."""
    same = _SAME | _SAME_OF_INSTALL if verb == "install" and asked.tool != "dpkg" else _SAME
    options = dict.fromkeys(same[option.name] for option in asked.options if _is_same(option, same))
    strange = [o.name for o in asked.options if not (_is_same(o, same) or _is_already(o))]
    strange += [word for word in words if not _is_package(word, verb, asked.tool)]
    note = f"apt-ostree knows nothing like {', '.join(strange)}." if strange else ""
    return Equivalent((verb, *options, *words), note, exact=not strange)


def _is_removal(word: str) -> bool:
    """Return whether a word is NAME-, a package that apt removes; others that end so mean nothing to it."""
    import re  # not at the top: a query needs none of it

    return word.endswith("-") and bool(re.fullmatch(_NAME, word[:-1]))


def _is_package(word: str, verb: str, tool: str) -> bool:
    """Return whether a word means the same to apt-ostree; dpkg takes names as those of files, too."""
    import re  # not at the top: a query needs none of it

    if verb == "install" and word.endswith(".deb"):
        return not word.startswith("-") and "://" not in word
    return bool(re.fullmatch(_NAME, word)) and not (verb == "install" and tool == "dpkg")


def _is_same(option: Option, same: Collection[str]) -> bool:
    return option.name in same and (option.value is None or option.name in {"-q", "--quiet"})


def _is_already(option: Option) -> bool:
    """Return whether an option asks for what is done anyway, also as `-o Dpkg::Options::=OPTION`."""
    if option.name in {"-o", "--option"}:
        key, _, value = (option.value or "").partition("=")
        return key.lower() == "dpkg::options::" and value in _ALREADY_DPKG
    return option.name in _ALREADY | _ALREADY_DPKG and not option.value
