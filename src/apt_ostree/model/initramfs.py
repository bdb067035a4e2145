"""Whether an initramfs has to be made again, as what it holds was changed. Paths are relative to /usr."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

#: Files here decide what is in an initramfs (dracut.modules(7), dracut.conf(5), modprobe.d(5)).
_INPUTS = (
    "lib/dracut/",
    "lib/firmware/",
    "lib/modprobe.d/",
    "lib/apt-ostree/dracut-arguments",
    "etc/dracut.conf",
    "etc/modprobe.d/",
)

#: Where dracut finds a program that is required by its name, and what its variables stand for.
_PATH = ("bin", "sbin")
_DIRECTORIES = {"systemdutildir": "lib/systemd", "systemdsystemunitdir": "lib/systemd/system"}
_CHECK = re.compile(r"^check\(\) *\{\n.*?^\}", re.DOTALL | re.MULTILINE)
_REQUIRE = re.compile(r"\brequire_(?:binaries|any_binary)\s((?:\\\n|[^\n|&;)])*)")

#: Packages that usually bring something for an initramfs.
_LIKELY = ("dracut*", "firmware-*", "*-microcode", "*-dkms", "cryptsetup*", "lvm2", "mdadm")

#: Packages that a note names.
_NAMES = 3


def contents(listing: str) -> frozenset[str]:
    """Return the files in the output of lsinitrd(1), whose rows have the form of `ls -l`.

    Directories are left out: any package has some of them.
    """
    rows = (line.split(None, 8) for line in listing.splitlines() if line[:1] in "-lcb")
    return frozenset(row[8].partition(" -> ")[0] for row in rows if len(row) == 9)


def read_list(text: str) -> frozenset[str]:
    """Return the files in the list of a tree; that of an older tree has directories, too."""
    paths = frozenset(text.splitlines())
    return paths - {path.rpartition("/")[0] for path in paths}


def required(setup: str) -> Iterator[tuple[str, ...]]:
    """Yield where dracut looks for each program that a module needs, from the text of its module-setup.sh.

    Without these programs dracut leaves the module out (dracut.modules(7)). There are none for a module that
    only others can ask for: many packages bring its programs, and it would not be added because of them.
    """
    check = _CHECK.search(setup)
    if check and "return 255" in check[0] and "return 0" not in check[0]:
        return
    for words in _REQUIRE.findall(setup):
        for word in words.replace("\\\n", " ").replace('"', "").split():
            directory, slash, name = word.rpartition("/")
            if not slash:
                yield tuple(f"{place}/{name}" for place in _PATH)
            elif directory.startswith("/usr/"):
                yield (word.removeprefix("/usr/"),)
            elif directory.startswith("$"):
                variable, _, rest = directory.strip("$").replace("{", "").replace("}", "").partition("/")
                if variable in _DIRECTORIES:
                    yield ("/".join(filter(None, (_DIRECTORIES[variable], rest, name))),)


def outdated_by(
    kernel: str, changed: Iterable[str], held: Collection[str], lacking: Collection[str] = ()
) -> list[str]:
    """Return those of the changed paths that belong to the initramfs of a kernel, sorted.

    held: the paths that it contains, from its root.
    lacking: the paths of programs without which dracut left a module out.
    """
    modules = f"lib/modules/{kernel}/"
    return sorted(
        path
        for path in changed
        if path.startswith(_INPUTS)
        or path in lacking
        or f"usr/{path}" in held
        or (path.startswith(modules) and path.endswith((".ko", ".ko.xz", ".ko.zst")))
    )


def paths_text(paths: Sequence[str]) -> str:
    """Return which paths outdate an initramfs, for a message: the first one, and how many more."""
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"/usr/{paths[0]}{more}"


def plan_notes(
    kernels: Mapping[str, Collection[str]],
    new: Sequence[str],
    added: Sequence[str],
    lists: Mapping[str, Collection[str]],
) -> tuple[str, ...]:
    """Return for which kernels a change of packages makes an initramfs, and why.

    What a new package brings is not known before it is unpacked; its name tells whether that is likely.

    kernels: version of a present kernel -> the paths that its initramfs contains.
    new: names of packages with a new kernel.
    added: names of all new packages.
    lists: name of a package that is changed or removed -> its present files.
    """
    if new:
        return tuple(f"made for the new kernel of {name}" for name in new)
    notes = []
    for kernel, held in sorted(kernels.items()):
        names = sorted(name for name, files in lists.items() if outdated_by(kernel, files, held))
        if names:
            notes.append(f"made anew for {kernel}, as it holds files of {_names_text(names)}")
    likely = sorted(name for name in added if any(fnmatchcase(name, pattern) for pattern in _LIKELY))
    if likely and kernels and not notes:
        notes.append(f"may be made anew because of {_names_text(likely)}")
    return tuple(notes)


def _names_text(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES} more packages" if len(names) > _NAMES else ""
    return f"{', '.join(names[:_NAMES])}{more}"
