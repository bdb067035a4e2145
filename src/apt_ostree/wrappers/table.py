"""The tools: which of their actions only read, which change the machine's files, and which change /usr."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from posixpath import abspath
from typing import NamedTuple

from apt_ostree.wrappers import equivalents
from apt_ostree.wrappers.equivalents import Asked, Change, Equivalent
from apt_ostree.wrappers.words import Line, Option, split, word_set


def _each(text: str, change: Change) -> dict[str, Change]:
    return dict.fromkeys(text.split(), change)


class Tool(NamedTuple):
    """A tool, and what its actions do. An action is the first word, or the first option that is one.

    reads: actions that change nothing, or only files that the caller names.
    own: actions that change only /etc and /var, which are the machine's.
    changes: actions that change /usr, with the packages' database in it -> what apt-ostree does instead.
    by_option: whether actions are options; these are then before all words, if not `anywhere`.
    anywhere: whether options may also stand behind words.
    helping: options with which the tool only prints help if their value starts with h.
    valued: options with a value, which may be the next argument.
    trying: options with which a change changes nothing.
    elsewhere: options and environment variables that name another system to work on.
    default: the action of a command line that has words and no action.
    tried: whether a change is tried on the machine, and apt-ostree's command only named if that fails.
    """

    reads: frozenset[str]
    changes: Mapping[str, Change]
    own: frozenset[str] = frozenset()
    by_option: bool = True
    anywhere: bool = False
    helping: frozenset[str] = frozenset()
    valued: frozenset[str] = frozenset()
    trying: frozenset[str] = frozenset()
    elsewhere: frozenset[str] = frozenset()
    default: str = ""
    tried: bool = False


_BUILD = (
    "apt-ostree configures packages when it builds a deployment, and what belongs to one machine at boot."
)
_NO_INPUT = (
    "A program in the next deployment gets no input; 'apt-ostree run' takes one command for each change."
)
_TREE = frozenset({"--root", "--instdir", "--admindir", "DPKG_ROOT", "DPKG_ADMINDIR"})
_APT_TRYING = word_set("-s --simulate --just-print --dry-run --recon --no-act -h --help -v --version")
_APT_VALUED = word_set(
    "-o --option -c --config-file -t --target-release --default-release -a --host-architecture "
    "-P --build-profiles -S --snapshot -e --error-on --with-source --solver --planner --comment --format "
    "--cli-version"
)
_APT_ELSEWHERE = word_set("-o --option -c --config-file APT_CONFIG")

_APT = Tool(
    by_option=False,
    anywhere=True,
    reads=word_set(
        "list search show info showsrc depends rdepends policy madison source download changelog "
        "indextargets check why why-not history-list history-info help moo"
    ),
    own=word_set("update clean autoclean auto-clean distclean dist-clean edit-sources modernize-sources"),
    changes={
        **_each("install", equivalents.install),
        **_each("remove purge autoremove auto-remove autopurge", equivalents.uninstall),
        **_each("upgrade full-upgrade dist-upgrade", equivalents.upgrade),
        **_each(
            "reinstall",
            equivalents.none("A package's files are as it ships them; 'dpkg --verify' compares them."),
        ),
        **_each(
            "build-dep satisfy",
            equivalents.none("Build in a container, or name the packages to 'apt-ostree install'."),
        ),
        **_each(
            "dselect-upgrade", equivalents.none("'apt-ostree install' and 'uninstall' take what is selected.")
        ),
        **_each(
            "history-undo history-redo history-rollback",
            equivalents.none(
                "'apt-ostree rollback' goes back, also live; 'apt-ostree history' lists the steps."
            ),
        ),
        **_each("markauto unmarkauto", equivalents.run),
    },
    valued=_APT_VALUED,
    trying=_APT_TRYING | word_set("-d --download-only --print-uris"),
    elsewhere=_APT_ELSEWHERE,
)

_APT_MARK = Tool(
    by_option=False,
    anywhere=True,
    reads=word_set(
        "showauto showmanual showhold showholds showheld showinstall showinstalls showremove showremoves "
        "showdeinstall showdeinstalls showpurge showpurges help"
    ),
    changes=_each(
        "auto manual hold unhold markauto unmarkauto minimize-manual install reinstall remove deinstall "
        "purge",
        equivalents.run,
    ),
    valued=_APT_VALUED | word_set("-f --file"),
    trying=_APT_TRYING,
    elsewhere=_APT_ELSEWHERE,
)

_DPKG = Tool(
    reads=word_set(
        "-s --status -p --print-avail -L --listfiles -l --list -S --search -C --audit -V --verify -W --show "
        "--get-selections --yet-to-unpack --predep-package --print-architecture "
        "--print-foreign-architectures --compare-versions --force-help --help -? --version --license "
        "--licence "
        # Those of dpkg-deb(1), which work on archives.
        "-b --build -c --contents -e --control -f --field -I --info -x --extract -X --vextract "
        "--raw-extract --ctrl-tarfile --fsys-tarfile"
    ),
    changes={
        **_each("-i --install", equivalents.install),
        **_each("-r --remove -P --purge", equivalents.uninstall),
        **_each("--configure --triggers-only", equivalents.none(_BUILD)),
        **_each("--unpack", equivalents.none("'apt-ostree install FILE' unpacks and configures.")),
        **_each("--set-selections", equivalents.none(f"{_NO_INPUT} 'apt-mark hold' is one.")),
        **_each(
            "--add-architecture --remove-architecture --clear-selections -A --record-avail --update-avail "
            "--merge-avail --clear-avail --forget-old-unavail",
            equivalents.run,
        ),
    },
    helping=word_set("-D --debug"),
    valued=word_set(
        "--root --instdir --admindir --pre-invoke --post-invoke --path-exclude --path-include "
        "--verify-format -D --debug --status-fd --status-logger --log --ignore-depends --abort-after"
    ),
    trying=word_set("--no-act --dry-run --simulate"),
    elsewhere=_TREE,
)

_UPDATE_ALTERNATIVES = Tool(
    anywhere=True,
    reads=word_set("--display --query --list --get-selections --help --version"),
    changes={
        **_each("--install --set --auto --remove --remove-all", equivalents.run),
        **_each("--config --all", equivalents.choose_alternative),
        **_each("--set-selections", equivalents.none(f"{_NO_INPUT} 'update-alternatives --set' is one.")),
    },
    valued=word_set("--altdir --admindir --instdir --root --log"),
    elsewhere=_TREE | {"--altdir"},
)

_DPKG_DIVERT = Tool(
    reads=word_set("--list --listpackage --truename --help -? --version"),
    changes=_each("--add --remove", equivalents.run),
    valued=word_set("--divert --package --admindir --instdir --root"),
    trying=word_set("--test"),
    elsewhere=_TREE,
    default="--add",
)

_DPKG_STATOVERRIDE = Tool(
    reads=word_set("--list --help -? --version"),
    changes=_each("--add --remove", equivalents.run),
    valued=word_set("--admindir --instdir --root"),
    elsewhere=_TREE,
)

#: Its questions need the terminal, and most of its scripts change only /etc and /var.
_DPKG_RECONFIGURE = Tool(
    reads=word_set("-h --help"),
    changes={"reconfigure": equivalents.reconfigure},
    valued=word_set("-f --frontend -p --priority"),
    default="reconfigure",
    tried=True,
)

TOOLS: Mapping[str, Tool] = {
    "apt": _APT,
    "apt-get": _APT,
    "apt-mark": _APT_MARK,
    "dpkg": _DPKG,
    "dpkg-divert": _DPKG_DIVERT,
    "dpkg-reconfigure": _DPKG_RECONFIGURE,
    "dpkg-statoverride": _DPKG_STATOVERRIDE,
    "update-alternatives": _UPDATE_ALTERNATIVES,
}

#: Actions with a variable part, which only read.
_READING_PREFIXES = ("--assert-", "--validate-")
#: Directories of the system itself.
_HERE = frozenset({"/", "/var/lib/dpkg", "/var/lib/dpkg/alternatives", "/etc/alternatives"})
#: Settings of apt that name another system (apt.conf(5)).
_APT_DIRECTORIES = frozenset({"dir", "rootdir", "dir::state", "dir::state::status"})
#: What apt takes as the value of the option before.
_FALSE = frozenset({"no", "false", "without", "off", "disable", "0"})


def decide(name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Equivalent | None:
    """Return what to do instead of a tool's command line; None: the tool itself has to be run.

    name: of the tool, one of TOOLS.
    """
    tool = TOOLS[name]
    line = split(arguments, tool.valued, options_first=not tool.anywhere)
    action = _action(tool, line)
    if action is None or action in tool.reads | tool.own or action.startswith(_READING_PREFIXES):
        return None
    if _is_elsewhere(tool, line, environment) or _only_tries(tool, line) or _only_helps(tool, line):
        return None
    if action not in tool.changes:
        what = f"'{name} {action}' is not known to leave /usr as it is."
        return Equivalent(note=f"{what} APT_OSTREE_WRAP=off runs it.")
    options = tuple(option for option in line.options if option.name != action)
    words = line.words if tool.by_option else line.words[1:]
    return tool.changes[action](Asked(name, tuple(arguments), options, words))


def _action(tool: Tool, line: Line) -> str | None:
    """Return the action of a command line, known or not; None: it has none, and its tool only complains."""
    if not tool.by_option:
        return line.words[0] if line.words else None
    for option in line.options:
        if option.name in tool.changes or option.name in tool.reads:
            return option.name
        if option.name.startswith(_READING_PREFIXES):
            return option.name
    if tool.default and line.words:
        return tool.default
    return line.options[0].name if line.options else (line.words[0] if line.words else None)


def _is_elsewhere(tool: Tool, line: Line, environment: Mapping[str, str]) -> bool:
    """Return whether a command line is about another system than the running one."""
    named = [(name, environment[name]) for name in tool.elsewhere if environment.get(name)]
    named += [(o.name, o.value) for o in line.options if o.value and o.name in tool.elsewhere]
    return any(_names_other(name, value) for name, value in named)


def _names_other(name: str, value: str) -> bool:
    if name in {"-o", "--option"}:
        key, _, value = value.partition("=")
        if key.lower() not in _APT_DIRECTORIES:
            return False
    return f"/{abspath(value).lstrip('/')}" not in _HERE  # of two slashes, abspath keeps both


def _only_tries(tool: Tool, line: Line) -> bool:
    """Return whether a change is only tried; not if another argument may take that back."""
    if not any(option.name in tool.trying for option in line.options):
        return False
    long = {name.removeprefix("--") for name in tool.trying if name.startswith("--")}
    return _FALSE.isdisjoint(map(str.lower, line.words)) and not any(
        _takes_back(option, tool, long) for option in line.options
    )


def _only_helps(tool: Tool, line: Line) -> bool:
    return any(o.name in tool.helping and (o.value or "").startswith("h") for o in line.options)


def _takes_back(option: Option, tool: Tool, long: Collection[str]) -> bool:
    """Return whether an option may take back that a change is only tried, such as --simulate=no for apt.

    long: the names of tool.trying.
    """
    if option.name in tool.trying:
        return option.value is not None
    setting = (option.value or "").partition("=")[0].rpartition("::")[2]
    return setting.lower() in long or option.name.removeprefix("--").partition("-")[2] in long
