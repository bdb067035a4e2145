"""The layout of a disk image, GRUB's texts and boot sectors, and what a machine is given."""

import re
import shlex
import subprocess
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import diskimage, growth, grub, grubenv, machine
from apt_ostree.model.diskimage import GIB, MIB, Contents
from apt_ostree.system.ext4 import used_inodes

CONTENTS = Contents(root=600 * MIB, boot=60 * MIB)
contents = st.builds(Contents, root=st.integers(0, 64 * GIB), boot=st.integers(0, GIB))
sizes = st.none() | st.integers(0, 1 << 42)

# --- the layout


@given(contents, sizes)
def test_partitions_follow_each_other_and_have_room(content, size):
    try:
        disk = diskimage.plan(content, size, "x")
    except Refused:
        assert size is not None and size < 700 * MIB + 2 * content.root + 8 * content.boot
        return
    assert size is None or size <= disk.size < size + MIB
    end = MIB  # where the first partition table ends
    for part in disk.partitions:
        assert (part.start, part.size % MIB) == (end, 0)
        end += part.size
    assert disk.size - 2 * MIB <= end <= disk.size - MIB  # the second table is in the rest
    assert disk.root.size > content.root
    assert disk.boot.size > 4 * content.boot


@given(contents)
def test_the_size_that_is_named_is_enough_and_less_is_not(content):
    with pytest.raises(Refused) as caught:
        diskimage.plan(content, 0, "x")
    named = int(re.search(r"--size=(\d+)M", caught.value.hint)[1]) * 10**6
    assert diskimage.plan(content, named, "x").size - named < MIB
    with pytest.raises(Refused):
        diskimage.plan(content, named - 2 * 10**6 - MIB, "x")


def test_room_for_another_deployment_is_left():
    assert diskimage.plan(CONTENTS, None, "x").root.size > 2 * CONTENTS.root + GIB


def identifiers(disk):
    systems = [disk.boot_uuid, disk.root_uuid, disk.boot_seed, disk.root_seed, disk.esp_serial]
    return [disk.disk_uuid, *systems, *(part.uuid for part in disk.partitions)]


def test_identifiers_come_from_the_identity_alone():
    one, again, other = (diskimage.plan(CONTENTS, None, name) for name in ("x", "x", "y"))
    assert one == again
    assert len({*identifiers(one), *identifiers(other)}) == 2 * len(identifiers(one))
    assert all(str(uuid.UUID(text)) == text for text in identifiers(one) if len(text) > 8)


def test_the_partition_table_has_what_firmware_looks_for():
    disk = diskimage.plan(CONTENTS, 4 * GIB, "x")
    rows = [row for row in diskimage.sfdisk_script(disk).splitlines() if row.startswith("start")]
    fields = [dict(item.strip().split("=") for item in row.split(",")) for row in rows]
    assert [field["name"].strip('"') for field in fields] == ["bios", "esp", "boot", "root"]
    assert [int(field["start"]) * 512 for field in fields] == [part.start for part in disk.partitions]
    assert fields[1]["type"] == "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"  # EFI system partition


@pytest.mark.parametrize("grows", [True, False])
def test_the_mounts_are_by_uuid(grows):
    disk = diskimage.plan(CONTENTS, None, "x")
    text = diskimage.fstab(disk, grows=grows)
    assert diskimage.mount_points(text) == {"/", "/boot", "/boot/efi"}
    assert all(line.startswith("UUID=") and len(line.split()) == 6 for line in text.splitlines())
    assert ("x-systemd.growfs" in text) == grows
    assert re.search(r"^UUID=[0-9A-F]{4}-[0-9A-F]{4} /boot/efi vfat", text, re.MULTILINE)


def test_mount_points_of_any_fstab():
    assert diskimage.mount_points("# /dev/x /x\n\n/dev/y\t/y ext4\n none  swap\n  # a /b\n") == {"/y", "swap"}


@given(st.integers(0, 1 << 40))
def test_a_file_takes_whole_blocks(size):
    assert 0 <= diskimage.allotted(size) - size < 4096
    assert diskimage.allotted(size) % 4096 == 0


# --- growth


def test_the_unit_runs_the_script():
    command = re.search(r"^ExecStart=(.*?)\n\n", growth.unit(), re.MULTILINE | re.DOTALL)[1]
    joined = command.replace("\\\n", "").replace("$$", "$")  # systemd.service(5)
    shell, options, script = shlex.split(joined)
    assert (shell, options) == ("/bin/sh", "-ec")
    assert [line.strip() for line in script.split("; ")] == growth.SCRIPT.splitlines()
    subprocess.run(["/bin/sh", "-n", "-c", script], check=True)
    assert "%" not in growth.SCRIPT  # systemd would replace it


# --- GRUB

words = st.text("abcXYZ019._,:=/@%+-~!^[]()", min_size=1)


@given(st.lists(words))
def test_ordinary_kernel_arguments_are_usable(arguments):
    assert grub.unusable(arguments) == []


@given(words, st.sampled_from(";&|<>$\"'{}\\#\n\t\x7f"), words)
def test_those_that_scripts_would_change_are_not(before, special, after):
    text = before + special + after
    assert grub.unusable(["rw", text, "quiet"]) == [text]


@given(st.lists(words), st.sampled_from(grub.SPECIAL_CHARACTERS.split()))
def test_the_message_names_what_is_special(arguments, character):
    assert grub.unusable([*arguments, f"x{character}"]) == [f"x{character}"]


MODULE_NAMES = st.sampled_from([*"abcdef", "linux", "normal", "part_gpt", "ext2"])


@given(st.dictionaries(MODULE_NAMES, st.lists(MODULE_NAMES.filter(lambda name: name != "linux"))))
def test_the_core_has_all_that_its_modules_and_the_loader_need(needs):
    text = "".join(f"{name}: {' '.join(needed)}\n" for name, needed in needs.items())
    assert grub.read_dependencies(text) == {name: tuple(needed) for name, needed in needs.items()}
    for modules in (grub.efi_modules(text), grub.bios_modules(text)):
        assert len(set(modules)) == len(modules)
        assert "linux" not in modules  # a command of the name of a key
        for name in ("linux", *modules):
            assert {*needs.get(name, ())} <= {*modules}


def test_no_module_may_bring_the_loader_along():
    with pytest.raises(ValueError, match="linux"):
        grub.efi_modules("normal: linux\n")


def test_the_menu_is_a_script_in_which_each_key_is_a_function():
    menu = grub.menu("debian")
    functions = set(re.findall(r"^function (\w+)", menu, re.MULTILINE))
    assert functions == {
        "title", "version", "options", "linux", "initrd", "aboot", "abootcfg", "devicetree"
    }  # fmt: skip
    assert "serial" not in menu
    subprocess.run(["grub-script-check"], input=menu, text=True, check=True)
    # While an entry is read no device is the root, so that a command `linux` loads nothing.
    assert menu.index("unset root") < menu.index("source ") < menu.index('set root="$disk"')


KEYWORDS = {"if", "elif", "then", "else", "fi", "for", "do", "done", "function", "set", "unset", "}", "#"}


@pytest.mark.parametrize("platform", ["i386-pc", "x86_64-efi"])
def test_the_core_has_the_commands_of_the_menu(platform):
    directory = Path("/usr/lib/grub") / platform
    rows = [line.lstrip("*").split(": ") for line in (directory / "command.lst").read_text().splitlines()]
    module_of = dict(rows)
    choose = grub.bios_modules if platform == "i386-pc" else grub.efi_modules
    modules = {*choose((directory / "moddep.lst").read_text()), grub.LOADER}
    text = grub.menu("debian", ["ttyS0"])
    used = set(re.findall(r"(?:^|[;{]|\bif|\bthen)[ ]*([a-z_]+)(?=[ ;])", text, re.MULTILINE)) & {*module_of}
    assert {"linux", "load_env", "save_env", "terminal_input", "true"} <= used
    lacking = {name for name in used if module_of[name] not in modules}
    assert lacking <= {"regexp"}  # for a GRUB whose own command `linux` comes before the function


@pytest.mark.parametrize(
    ("consoles", "command"),
    [
        (("ttyS0",), "serial --unit=0 --speed=115200"),
        (("tty0", "ttyS1,9600n8"), "serial --unit=1 --speed=9600"),
    ],
)
def test_the_menu_is_on_a_serial_console(consoles, command):
    menu = grub.menu("debian", consoles)
    assert command in menu.splitlines()
    subprocess.run(["grub-script-check"], input=menu, text=True, check=True)


def test_the_first_script_ends_in_the_menu():
    """Had it another command after that, GRUB would have read which module has which command."""
    lines = grub.first_script("1-2").splitlines()
    assert lines[0].split()[-3:] == ["--fs-uuid", "1-2", "--set=root"]
    assert lines[-1] == "configfile ($root)/grub/grub.cfg"


@pytest.mark.parametrize(
    ("of_tree", "more", "arguments"),
    [
        ((), (), ("root=UUID=u", "rw", "console=ttyS0")),
        (("rw", "quiet"), ("a=b",), ("root=UUID=u", "rw", "quiet", "console=ttyS0", "a=b")),
        (("ro",), (), ("root=UUID=u", "ro", "console=ttyS0")),
    ],
)
def test_the_kernel_arguments(of_tree, more, arguments):
    assert grub.kernel_arguments("u", of_tree, ["ttyS0"], more) == arguments


@given(st.binary(min_size=512, max_size=512), st.integers(1, 1 << 40))
def test_the_boot_sector_loads_the_core(image, start):
    code = grub.boot_sector(image, start)
    assert len(code) == 440  # then comes the partition table
    assert int.from_bytes(code[0x5C:0x64], "little") == start
    assert (code[:0x5C], code[0x64:0x66], code[0x68:]) == (image[:0x5C], image[0x64:0x66], image[0x68:440])


@given(st.binary(min_size=512, max_size=3000), st.integers(1, 1 << 40))
def test_the_core_loads_the_rest_of_itself(image, start):
    core = grub.core_image(image, start)
    assert len(core) % 512 == 0 and 0 <= len(core) - len(image) < 512
    first, count, segment = (core[a:b] for a, b in ((0x1F4, 0x1FC), (0x1FC, 0x1FE), (0x1FE, 0x200)))
    assert int.from_bytes(first, "little") == start + 1
    assert int.from_bytes(count, "little") == len(core) // 512 - 1
    assert int.from_bytes(segment, "little") == 0x820
    assert (core[:0x1F4], core[512:]) == (image[:0x1F4], image[512:].ljust(len(core) - 512, b"\0"))


# --- the environment of the menu

NAMES = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
VARIABLES = st.dictionaries(NAMES, st.text("abc019 .=,", max_size=12), max_size=20)


@given(VARIABLES)
def test_variables_are_read_as_they_are_written(variables):
    text = grubenv.format_block(variables)
    assert len(text.encode()) == 1024
    assert grubenv.parse(text) == variables


def test_what_is_no_environment():
    for text in ("", "boot_counter=1\n".ljust(1024, "#"), grubenv.format_block({})[:-1]):
        with pytest.raises(ValueError, match="environment block"):
            grubenv.parse(text)
    with pytest.raises(ValueError, match="too long"):
        grubenv.format_block({"x": "y" * 1000})


@given(VARIABLES, st.integers(0, grubenv.MOST_ATTEMPTS))
def test_counting_starts_and_stops(variables, attempts):
    given_attempts = variables | {grubenv.ATTEMPTS: str(attempts)}
    begun = grubenv.started(given_attempts)
    assert begun.get(grubenv.COUNTER) == (str(attempts) if attempts else None)
    assert grubenv.stopped(begun) == grubenv.stopped(given_attempts)
    assert grubenv.COUNTER not in grubenv.started(variables)  # it was never to be counted


def run_menu(counter: str | None) -> tuple[str, dict[str, str]]:
    """Run the part of the menu that counts, which is a shell's script as well; return what it sets."""
    menu = grub.menu("debian")
    part = menu[menu.index('set note=""') : menu.index("function title")]
    script = re.sub(r"\bset (\w+=)", r"\1", part).replace("load_env boot_counter", "")
    script = script.replace("save_env boot_counter", "saved=$boot_counter")
    first = f"boot_counter={counter}\n" if counter is not None else ""
    shown = subprocess.run(
        ["sh", "-euc", f'{first}boot_counter=${{boot_counter-}}; default=0 saved=none\n{script}\n'
         'echo "$default $saved $note"'],
        capture_output=True, text=True, check=True,
    ).stdout.strip("\n")  # fmt: skip
    default, saved, note = shown.split(" ", 2)
    return default, {"saved": saved, "note": note}


def test_the_menu_counts_down_and_then_starts_the_second_entry():
    assert run_menu(None) == ("0", {"saved": "none", "note": ""})
    assert run_menu("") == ("0", {"saved": "none", "note": ""})
    for left in range(1, grubenv.MOST_ATTEMPTS + 1):
        assert run_menu(str(left)) == ("0", {"saved": str(left - 1), "note": "apt-ostree.boot=counted"})
    assert run_menu("0") == ("1", {"saved": "none", "note": "apt-ostree.boot=gave-up"})


# --- ext4


@given(st.sets(st.integers(1, 400)))
def test_used_inodes_are_those_that_dumpe2fs_does_not_list_as_free(free):
    rows = [sorted(number for number in free if number // 100 == group) for group in range(5)]
    shown = "".join(f"  Free blocks: 7-9\n  Free inodes: {', '.join(spans(row))}\n" for row in rows)
    head = f"Inode count:              400\nFree inodes:              {len(free)}\n"
    assert {*used_inodes(head + shown)} == {*range(1, 401)} - free


def spans(numbers):
    """Yield what stands for numbers in order, as dumpe2fs does: FIRST-LAST or NUMBER."""
    while numbers:
        count = next((n for n, one in enumerate(numbers) if one != numbers[0] + n), len(numbers))
        yield str(numbers[0]) if count == 1 else f"{numbers[0]}-{numbers[count - 1]}"
        numbers = numbers[count:]


# --- the machine

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKc4"


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (KEY, f"{KEY}\n"),
        (f"# mine\n\n{KEY} me@example.org\r\n{KEY}", f"{KEY} me@example.org\n{KEY}\n"),
        (f'command="x y" {KEY}', f'command="x y" {KEY}\n'),
        ("sk-ssh-ed25519@openssh.com AAAA= x", "sk-ssh-ed25519@openssh.com AAAA= x\n"),
    ],
)
def test_public_keys(text, keys):
    assert machine.read_public_keys(text, "k") == keys


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# none\n",
        "hello",
        f"{KEY}\nhello",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3\n",
        "ssh-rsa",
        "ssh-rsa ?",
    ],
)
def test_what_is_no_public_key(text):
    with pytest.raises(UsageError):
        machine.read_public_keys(text, "k")


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (
            machine.check_hostname,
            ["a", "web1", "Web-1.example.org", "a" * 63],
            ["", "-a", "a-", "a_b", "a..b", "a.", "a" * 64, ".".join(["a" * 21] * 3), "a\n", "ä"],
        ),
        (machine.check_account, ["me", "_x", "a-b_1"], ["", "Me", "1a", "-a", "a b", "a:b", "a" * 33, "a\n"]),
        (
            machine.check_console,
            ["tty0", "ttyS0", "ttyS1,115200", "ttyS0,115200n8r", "hvc0"],
            ["", "/dev/tty0", "ttyS0 x", "ttyS0,fast", "ttyS0\n", "0"],
        ),
    ],
)
def test_names(check, good, bad):
    for name in good:
        check(name)
    for name in bad:
        with pytest.raises(UsageError):
            check(name)


@pytest.mark.parametrize(
    ("shadow", "accounts"),
    [("", []), ("root:*:1::::::\nme:!:1::::::\nyou:!$y$x:1\n", []), ("root::1\nme:$y$x:1\n", ["root", "me"])],
)
def test_who_can_log_in_without_a_key(shadow, accounts):
    assert machine.accounts_with_password(shadow) == accounts


def test_machines_that_differ_have_other_disks():
    plain = machine.Machine()
    others = [replace(plain, **{field: "x"}) for field in ("hostname", "user", "keys")]
    assert len({str(one.identity) for one in [plain, *others]}) == 4
