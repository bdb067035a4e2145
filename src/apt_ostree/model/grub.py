"""GRUB on a disk image: its menu, its modules, and the boot sectors of a BIOS. Texts and bytes only.

Debian's GRUB cannot read boot entries (the Boot Loader Specification). But a file of one is also a script of
GRUB's if each of its keys is a function. So the menu is written once: at each start it reads the entries that
libostree has written, and whatever libostree does for a deployment, it does not touch the boot loader.

Commands win over functions. So no command may have the name of a key: the module `linux` must be loaded only
when an entry is chosen, and not be found before (GRUB loads a command's module by itself where it has read
command.lst, which it does not if its own first script ends in `configfile`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from apt_ostree.errors import Refused
from apt_ostree.model import kargs
from apt_ostree.model.grubenv import ARGUMENT, COUNTED, COUNTER, GAVE_UP, MOST_ATTEMPTS

#: How a menu of ours begins.
MARK = "# apt-ostree's boot menu: "
#: What is loaded when an entry is chosen.
LOADER = "linux"
_MODULES = (
    "part_gpt", "fat", "ext2", "normal", "search", "search_fs_uuid", "configfile", "test", "echo", "loadenv",
    "serial", "terminal", "reboot", "halt", "minicmd", "gzio", "ls", "cat", "sleep", "true",
)  # fmt: skip
_EFI_MODULES = ("efi_gop",)
_BIOS_MODULES = ("biosdisk", "vbe")
#: Keys of libostree's boot entries besides title, options, linux and initrd; they say nothing to GRUB.
_FURTHER_KEYS = ("version", "aboot", "abootcfg", "devicetree")
#: Deployments that the menu shows at most; libostree numbers the entries, the newest is the highest.
_ENTRIES = 20
_TIMEOUT = 2  # seconds
_TIMEOUT_BESIDE = 5  # seconds
#: Of a Debian that was taken over, in the directory of GRUB's own menu: what that runs, and the menu of ours.
HOOK, BESIDE = "custom.cfg", "apt-ostree.cfg"
#: A variable of the menu: it was called to start the system that was here before.
_BEFORE = "before_ostree"
#: Characters that GRUB's scripts take for something else.
SPECIAL_CHARACTERS = r"; & | < > $ { } \ #"
_SPECIAL = re.compile(r"""[;&|<>$"'{}\\#]""")
#: What regexp sets: $os and $sum, as in the name of the directory with kernel and initramfs.
_OSTREE_ARGUMENT = "--set=1:os --set=2:sum 'ostree=/ostree/boot[.][01]/([^/ ]+)/([0-9a-f]+)/'"
_SERIAL = re.compile(r"ttyS([0-9])(?:,([0-9]+).*)?")

# Where the boot sectors have what they load next; see include/grub/i386/pc/boot.h of GRUB.
_BOOT_CODE = 440
_KERNEL_SECTOR = 0x5C
_DRIVE_CHECK = 0x66
_BLOCK_LIST = 0x1F4
_KERNEL_SEGMENT = 0x820
_SECTOR = 512


def unusable(texts: Iterable[str]) -> list[str]:
    """Return those of kernel arguments or titles that would break the menu."""
    return [text for text in texts if _SPECIAL.search(text) or not text.isprintable()]


def refuse_unusable(arguments: Iterable[str]) -> None:
    """Raise Refused for kernel arguments that would break the menu."""
    if wrong := unusable(arguments):
        raise Refused(
            "there are kernel arguments that the boot menu, a script of GRUB, cannot have",
            details=wrong,
            hint=f"none can have quotes or any of {SPECIAL_CHARACTERS}; nothing was changed",
        )


def efi_modules(dependencies: str) -> tuple[str, ...]:
    """Return the modules for UEFI. dependencies: the text of GRUB's moddep.lst."""
    return _with_dependencies((*_MODULES, *_EFI_MODULES), read_dependencies(dependencies))


def bios_modules(dependencies: str) -> tuple[str, ...]:
    """Return the modules for a BIOS. dependencies: the text of GRUB's moddep.lst."""
    return _with_dependencies((*_MODULES, *_BIOS_MODULES), read_dependencies(dependencies))


def read_dependencies(text: str) -> dict[str, tuple[str, ...]]:
    """Return module -> modules that it needs, of the text of moddep.lst."""
    rows = (line.partition(":") for line in text.splitlines())
    return {name.strip(): tuple(needed.split()) for name, _, needed in rows if name.strip()}


def _with_dependencies(modules: Sequence[str], dependencies: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return modules, and those that they and the loader need: the disk has no other file of a module."""
    found: dict[str, None] = {}
    todo = [*modules, *dependencies.get(LOADER, ())]
    while todo:
        name = todo.pop(0)
        if name not in found:
            found[name] = None
            todo += dependencies.get(name, ())
    if LOADER in found:
        raise ValueError(f"a module of the core needs {LOADER}")
    return tuple(found)


def first_script(boot_uuid: str) -> str:
    """Return the script that is embedded in GRUB: it finds the menu on the file system of /boot."""
    return (
        f"search --no-floppy --fs-uuid {boot_uuid} --set=root\n"
        "set prefix=($root)/grub\n"
        "configfile ($root)/grub/grub.cfg\n"
    )


def menu(stateroot: str, consoles: Sequence[str] = ()) -> str:
    """Return the menu, grub.cfg. consoles: as the kernel's console= has them."""
    return "\n".join((*_HEAD, *_terminals(consoles), *_counting(), *_functions(), *_loop(stateroot), ""))


_HEAD = (
    f"{MARK}the newest deployment first, as libostree's boot entries have them. Each file in",
    "# /loader/entries is read as a script in which the keys are functions. Written once, when the disk was",
    "# composed; a new deployment does not change it.",
    f"set timeout={_TIMEOUT}",
    "set default=0",
)


# --- a Debian that was taken over: the menu beside its own one


def hook() -> str:
    """Return what Debian's own menu runs at its end: another menu comes before it, unless that has called it.

    So neither what GRUB has installed nor its menu is changed, and update-grub may write that again.
    """
    return (
        f"{MARK}shows it before that of the system which was here before.\n"
        "# Without this file, that system is started.\n"
        f'if [ -z "${_BEFORE}" ]; then\n  configfile $prefix/{BESIDE}\nfi\n'
    )


def menu_beside(stateroot: str, boot_uuid: str, boot: str, old: str) -> str:
    """Return the menu of a Debian that was taken over, whose last entry shows its own one.

    boot_uuid: of the file system with /boot. boot: the path of /boot on it, "" if it is its root.
    old: what the system is called that was here before.
    """
    head = (
        f"{MARK}the deployments, then the system that was here before.",
        f"set timeout={_TIMEOUT_BESIDE}",
        "set default=0",
        f"search --no-floppy --fs-uuid --set=root {boot_uuid}",
    )
    entry = (
        f'menuentry "{old} (as it was before)" --id before --unrestricted {{',
        f"  set {_BEFORE}=1",
        f"  export {_BEFORE}",
        "  configfile $prefix/grub.cfg",
        "}",
        "",
    )
    return "\n".join((*head, *_counting(), *_functions(boot), *_loop(stateroot, boot), *entry))


def _terminals(consoles: Sequence[str]) -> Iterator[str]:
    found = next(filter(None, map(_SERIAL.fullmatch, consoles)), None)
    if found:
        unit, speed = found.groups()
        yield f"serial --unit={unit} --speed={speed or 115200}"
        yield "terminal_input console serial"
        yield "terminal_output console serial"


def _counting() -> Iterator[str]:
    """Yield the part that counts: with no attempt left, the second entry is started. GRUB cannot subtract."""
    yield 'set note=""'
    yield f"load_env {COUNTER}"
    yield f'if [ "${COUNTER}" = 0 ]; then'
    yield f"  set default=1; set note={ARGUMENT}={GAVE_UP}"
    for left in range(1, MOST_ATTEMPTS + 1):
        yield f'elif [ "${COUNTER}" = {left} ]; then'
        yield f"  set {COUNTER}={left - 1}; save_env {COUNTER}; set note={ARGUMENT}={COUNTED}"
    yield "fi"


def _functions(boot: str = "") -> Iterator[str]:
    yield 'function title { set e_title="$*"; }'
    yield 'function options { set e_options="$*"; }'
    yield f'function linux {{ set e_linux="{boot}$1"; }}'
    yield f'function initrd {{ set e_initrd="$e_initrd {boot}$1"; }}'
    yield from (f"function {key} {{ true; }}" for key in _FURTHER_KEYS)


def _loop(stateroot: str, boot: str = "") -> Iterator[str]:
    entries = f"{boot}/loader/entries/ostree"
    numbers = " ".join(str(number) for number in range(_ENTRIES, 0, -1))
    yield f"for n in {numbers}; do"
    yield f"  for f in {entries}-$n.conf {entries}-$n-{stateroot}.conf; do"
    yield "    if [ -f $f ]; then"
    yield '      set e_title=""; set e_options=""; set e_linux=""; set e_initrd=""'
    yield '      set disk="$root"; unset root'
    yield '      source "($disk)$f"'
    yield '      set root="$disk"'
    yield from _built_in(boot)
    yield '      if [ -n "$e_linux" ]; then'
    yield (
        '        menuentry "$e_title" --id "ostree-$n" --unrestricted "$e_linux" "$e_initrd" "$e_options" {'
    )
    yield f"          insmod {LOADER}"
    yield "          linux $2 $4 $note"
    yield '          if [ -n "$3" ]; then initrd $3; fi'
    yield "        }"
    yield "      fi"
    yield "    fi"
    yield "  done"
    yield "done"


def _built_in(boot: str) -> Iterator[str]:
    """Yield the part that finds kernel and initramfs where the keys of an entry were commands.

    libostree has them in /ostree/STATEROOT-CHECKSUM, and ostree=/ostree/boot.N/STATEROOT/CHECKSUM/N in the
    options. Without a match, a pattern stands for itself.
    """
    yield '      if [ -z "$e_linux" ]; then'
    yield f'        if regexp {_OSTREE_ARGUMENT} "$e_options"; then'
    yield f'          for file in {boot}/ostree/"$os"-"$sum"/vmlinuz-*; do'
    yield '            if [ -f "$file" ]; then set e_linux="$file"; fi'
    yield "          done"
    yield f'          for file in {boot}/ostree/"$os"-"$sum"/initramfs-*; do'
    yield '            if [ -f "$file" ]; then set e_initrd="$file"; fi'
    yield "          done"
    yield "        fi"
    yield "      fi"


# --- the kernel's command line


def kernel_arguments(
    root_uuid: str, of_tree: Sequence[str], consoles: Sequence[str], more: Sequence[str]
) -> kargs.Arguments:
    """Return the kernel arguments of the first deployment."""
    given = (*of_tree, *(f"console={console}" for console in consoles), *more)
    writable = () if {"rw", "ro"} & {*given} else ("rw",)
    return (f"root=UUID={root_uuid}", *writable, *given)


# --- the boot sectors of a BIOS


def boot_sector(image: bytes, start: int) -> bytes:
    """Return the first 440 bytes of the disk, of GRUB's boot.img.

    start: the sector in which the core image begins.
    """
    code = bytearray(image[:_BOOT_CODE])
    code[_KERNEL_SECTOR : _KERNEL_SECTOR + 8] = start.to_bytes(8, "little")
    code[_DRIVE_CHECK : _DRIVE_CHECK + 2] = b"\x90\x90"  # trust the BIOS: boot from the drive that it names
    return bytes(code)


def core_image(image: bytes, start: int) -> bytes:
    """Return a core image in whole sectors, its first one pointing to those that follow.

    start: the sector in which it begins.
    """
    sectors = -(-len(image) // _SECTOR)
    core = bytearray(image.ljust(sectors * _SECTOR, b"\0"))
    where = (start + 1).to_bytes(8, "little") + (sectors - 1).to_bytes(2, "little")
    core[_BLOCK_LIST : _BLOCK_LIST + 12] = where + _KERNEL_SEGMENT.to_bytes(2, "little")
    return bytes(core)
