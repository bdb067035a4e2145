"""`compose disk` as far as nothing is made: the command line, and what is refused without root or a tree."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from apt_ostree.cli import client, main
from apt_ostree.core.compose.disk import boot, image, machine, planning, verifying
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import bootloader, diskimage, events, jsonvalue
from apt_ostree.model.origin import Origin
from apt_ostree.model.requests.images import ComposeDisk, ImageFormat
from apt_ostree.system import another_worker, programs
from apt_ostree.system.ostree.new_sysroot import Source

#: Beside the signed loaders on the EFI system partition.
OTHER_FILES = ("/EFI/debian/grub.cfg", "/EFI/debian/apt-ostree.json")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[ComposeDisk]:
    """The requests that the command line makes."""
    found: list[ComposeDisk] = []

    def call(request, *_args, **_options):
        found.append(request)
        result = {"changed": True, "output": "/x.qcow2", "size": 4 * 10**9, "bytes": 3 * 10**8}
        return client.Answer(result, next_boot=False)

    monkeypatch.setattr(client, "call", call)
    return found


def test_all_options_are_in_the_request(sent: list[ComposeDisk], capsys):
    words = [
        "--repo=r",
        "--ref=os",
        "-o",
        "x.img",
        "--format=qcow2",
        "--size=4G",
        "--hostname=web1",
        "--user=me",
    ]
    words += ["--ssh-key=k", "--console=tty0", "--console=ttyS0", "--karg=a", "--karg=b", "--boot-attempts=5"]
    words += ["--verify-reproducible"]
    assert main.run(["compose", "disk", "os.yaml", *words, "--force"]) == 0
    assert sent == [
        ComposeDisk(
            output="x.img", treefile="os.yaml", repo="r", ref="os", format=ImageFormat.QCOW2, size=4 * 10**9,
            hostname="web1", user="me", ssh_key="k", consoles=("tty0", "ttyS0"), kernel_arguments=("a", "b"),
            boot_attempts=5, force=True, verify=True,
        )
    ]  # fmt: skip
    assert capsys.readouterr().out == "/x.qcow2: a disk of 4.0 GB, 300.0 MB written\n"


def test_the_least_is_a_tree_and_an_output(sent: list[ComposeDisk]):
    assert main.run(["compose", "disk", "os.yaml", "-o", "x.raw"]) == 0
    assert sent == [ComposeDisk(output="x.raw", treefile="os.yaml")]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["os.yaml"],
        ["-o", "x", "--size=much"],
        ["-o", "x", "--format=vmdk"],
        ["-o", "x", "--boot-attempts=10"],
    ],
)
def test_mistakes_are_not_sent(sent: list[ComposeDisk], words: list[str]):
    assert main.run(["compose", "disk", *words]) == 2
    assert sent == []


def compose(**options) -> None:
    image.compose_disk(Transaction([].append, "compose-disk"), ComposeDisk(**options))


@pytest.mark.parametrize("options", [{}, {"repo": "r"}, {"ref": "os"}])
def test_without_a_tree_there_is_nothing_to_make(tmp_path: Path, options: dict[str, str]):
    with pytest.raises(UsageError, match="nothing to make"):
        compose(output=str(tmp_path / "x.raw"), **options)


def test_it_needs_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(planning.os, "geteuid", lambda: 7)
    with pytest.raises(Refused, match="needs root"):
        compose(output=str(tmp_path / "x.raw"), treefile="os.yaml")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "asked", "form"),
    [
        ("x.raw", None, ImageFormat.RAW),
        ("x.qcow2", None, ImageFormat.QCOW2),
        ("x", None, ImageFormat.RAW),
        ("x.qcow2", ImageFormat.RAW, ImageFormat.RAW),
    ],
)
def test_the_format_is_that_of_the_name(tmp_path: Path, monkeypatch, name: str, asked, form: ImageFormat):
    monkeypatch.setattr(planning.os, "geteuid", lambda: 0)
    monkeypatch.setattr(programs, "require", lambda *_: None)
    monkeypatch.setattr(planning.mmdebstrap, "native_architecture", lambda: "amd64")
    request = ComposeDisk(output=str(tmp_path / name), treefile="os.yaml", format=asked)
    assert planning.check_request(request) == (tmp_path / name, form)


def test_other_architectures_are_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(planning.os, "geteuid", lambda: 0)
    monkeypatch.setattr(planning.mmdebstrap, "native_architecture", lambda: "riscv64")
    with pytest.raises(Refused, match="riscv64"):
        planning.check_request(ComposeDisk(output=str(tmp_path / "x"), treefile="os.yaml"))


def test_a_key_that_cannot_be_read_is_a_usage_error(tmp_path: Path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "none", tmp_path, tmp_path / "binary"):
        with pytest.raises(UsageError, match="--ssh-key"):
            machine.read(ComposeDisk(output="x", ssh_key=str(path)))


def test_only_so_many_attempts_can_be_counted():
    with pytest.raises(ValueError, match="boot_attempts"):
        ComposeDisk(output="x", boot_attempts=10)


# --- whether it is reproducible


LAYOUT = diskimage.plan(diskimage.Contents(root=1 << 20, boot=1 << 20), None, "x")


def job(place: Path) -> planning.Job:
    source = Source(place / "repo", "c" * 64, Origin(refspec="os"))
    return planning.Job(source, LAYOUT, (), 0, 0, 1700000000)


def raw_disks(place: Path, *differ: int) -> tuple[Path, Path]:
    """Make two raw images, the second one with another byte at these places."""
    paths = place / "one.raw", place / "two.raw"
    for path in paths:
        with path.open("wb") as stream:
            stream.truncate(LAYOUT.size)
    with paths[1].open("r+b") as stream:
        for at in differ:
            stream.seek(at)
            stream.write(b"x")
    return paths


def test_two_equal_disks_are_said_to_be_so(tmp_path: Path):
    first, second = tmp_path / "a", tmp_path / "b"
    for path in (first, second):
        path.write_text("disk")
    told: list[events.Event] = []
    digest = verifying.require_same_file(Transaction(told.append, "x"), job(tmp_path), first, second)
    assert any(digest in event.text for event in told if isinstance(event, events.Message))
    second.write_text("disc")
    with pytest.raises(Refused, match="not reproducible"):
        verifying.require_same_file(Transaction(told.append, "x"), job(tmp_path), first, second)


@pytest.mark.extended
def test_partitions_that_differ_are_named(tmp_path: Path):
    places = (5, LAYOUT.esp.start + 7, LAYOUT.root.start + (3 << 20), LAYOUT.size - 1)
    first, second = raw_disks(tmp_path, *places)
    with pytest.raises(Refused) as caught:
        verifying.require_same_disk(job(tmp_path), first, second)
    assert [(row["part"], row["byte"]) for row in caught.value.reasons] == [
        ("the partition table and the boot sector", 5),
        ("the partition esp", 7),
        ("the partition root", 3 << 20),
        ("the copy of the partition table", LAYOUT.size - 1 - LAYOUT.root.start - LAYOUT.root.size),
    ]


def test_every_byte_of_a_disk_is_of_one_part():
    parts = list(verifying._parts(LAYOUT))
    assert parts[0][1] == 0 and parts[-1][2] == LAYOUT.size
    assert all(before[2] == after[1] for before, after in itertools.pairwise(parts))


def test_the_second_disk_is_made_of_the_same_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[ComposeDisk] = []
    monkeypatch.setattr(
        another_worker,
        "carry_out",
        lambda _verb, request, **_how: seen.append(jsonvalue.read(ComposeDisk, request, name="x")) or {},
    )
    request = ComposeDisk(output="x.qcow2", treefile="os.yaml", hostname="h", ssh_key="k", verify=True)
    path = verifying.build_again(Transaction([].append, "x"), request, job(tmp_path), tmp_path)
    (again,) = seen
    assert (again.treefile, again.repo, again.ref) == (None, str(tmp_path / "repo"), "os")
    assert (again.format, again.verify, again.hostname) == (ImageFormat.RAW, False, "h")
    assert (again.output, again.ssh_key) == (str(path), str(Path("k").absolute()))


# --- the loaders


def signed_tree(tree: Path, *, without: str = "") -> Path:
    for source in bootloader.SOURCES.values():
        if not (without and source.endswith(without)):
            (tree / source).parent.mkdir(parents=True, exist_ok=True)
            (tree / source).write_text(source)
    return tree


@pytest.mark.parametrize(
    ("without", "esp", "warns"),
    [
        ("", {"/EFI/BOOT/BOOTX64.EFI", "/EFI/BOOT/grubx64.efi", "/EFI/BOOT/mmx64.efi", *OTHER_FILES}, False),
        ("mmx64.efi.signed", {"/EFI/BOOT/BOOTX64.EFI", "/EFI/BOOT/grubx64.efi", *OTHER_FILES}, False),
        ("grubx64.efi.signed", {"/EFI/BOOT/BOOTX64.EFI"}, True),
        ("shimx64.efi.signed", {"/EFI/BOOT/BOOTX64.EFI"}, True),
    ],
)
def test_signed_loaders_are_taken_if_shim_and_grub_are_there(
    tmp_path: Path, monkeypatch, without, esp, warns
):
    made = []
    monkeypatch.setattr(boot.grub, "make_core", lambda platform, *_: made.append(platform))
    monkeypatch.setattr(boot.grub, "dependencies", lambda _platform: "")
    disk = diskimage.plan(diskimage.Contents(10**8, 10**7), None, "x")
    told: list = []
    tree = signed_tree(tmp_path / "tree", without=without)
    loaders = boot.make_loaders(Transaction(told.append, "compose-disk"), tree, disk, tmp_path)
    assert {str(path) for path in loaders.esp} == esp
    assert bool(told) == warns
    assert loaders.signed == (len(esp) > 1)
    assert made == [boot.grub.BIOS] + ([] if loaders.signed else [boot.grub.EFI])


def test_a_tree_without_signed_loaders_needs_no_warning(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(boot.grub, "make_core", lambda *_: None)
    monkeypatch.setattr(boot.grub, "dependencies", lambda _platform: "")
    disk = diskimage.plan(diskimage.Contents(10**8, 10**7), None, "x")
    told: list = []
    assert not boot.make_loaders(Transaction(told.append, "compose-disk"), tmp_path, disk, tmp_path).signed
    assert told == []
