"""Layers from somewhere else: what is refused, what is left out, and what becomes part of a tree."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.model import image_screen, layout, spdx
from apt_ostree.model.filestate import FileState
from apt_ostree.model.image_merge import LayerTree, Merge
from apt_ostree.model.image_screen import Header, Kept, Screen, Unfit, in_tree
from apt_ostree.system import tarreader

USR = Header("usr", "directory", mode=0o755)
FILE = Header("usr/file", "file", 3, 0o644)
CAPABILITY = ("security.capability", b"\1" * 20)


def screened(*headers: Header) -> tuple[Screen, list[Kept]]:
    screen = Screen()
    kept = [one for header in headers if (one := screen.take(header))]
    screen.finish()
    return screen, kept


def link(path: str, target: str, **more) -> Header:
    return Header(path, "symlink", target=target, **more)


def hard(path: str, target: str, **more) -> Header:
    return Header(path, "hard link", target=target, **more)


def file(path: str, size: int = 0, **more) -> Header:
    return Header(path, "file", size, **{"mode": 0o644, **more})


def with_xattr(name: str, value: bytes = b"1", kind: str = "file") -> Header:
    return Header("usr/x", kind, xattrs=((name, value),))  # type: ignore[arg-type]


HOSTILE: dict[str, list[Header]] = {
    # names
    "empty name": [file("")],
    "absolute name": [file("/usr/x")],
    "the root, absolute": [Header("/", "directory")],
    "parent directory": [file("usr/../etc/passwd")],
    "parent directory first": [file("../x")],
    "parent directory last": [Header("usr/..", "directory")],
    "not UTF-8": [file("usr/\udcff")],
    "newline": [file("usr/a\nb")],
    "escape sequence": [file("usr/\x1b[2J")],
    "NUL": [file("usr/a\0b")],
    "delete": [file("usr/a\x7f")],
    "double slash": [file("usr//x")],
    "dot inside": [file("usr/./x")],
    "slash last": [file("usr/x/")],
    "twice dot": [file("././usr/x")],
    "long name": [file("usr/" + "a" * 256)],
    "long name of many bytes": [file("usr/" + "ä" * 128)],
    "long path": [file("usr/" + "/".join(["a" * 200] * 21))],
    "deep path": [file("/".join(["usr"] + ["a"] * 100))],
    "mark of ostree": [file("usr/.ostree-wh.passwd")],
    "directory with a mark of ostree": [file("usr/.ostree-wh.x/y")],
    # marks of what is gone
    "directory as a mark": [Header("usr/.wh.x", "directory")],
    "link as a mark": [link("usr/.wh.x", "y")],
    "mark with content": [file("usr/.wh.x", 5)],
    "mark of nothing": [file("usr/.wh.")],
    "mark of a dot": [file("usr/.wh..")],
    "mark of two dots": [file("usr/.wh...")],
    "mark of aufs": [file("usr/.wh..wh.aufs")],
    "mark of a mark": [file("usr/.wh..wh.x")],
    "below a mark": [file("usr/.wh.x/y")],
    "mark twice": [file("usr/.wh.x"), file("usr/.wh.x")],
    "mark of a file of the layer": [FILE, file("usr/.wh.file")],
    "mark of what is above": [file("usr/a/b"), file("usr/.wh.a")],
    "removed usr": [file(".wh.usr")],
    "removed etc": [file(".wh.etc")],
    "removed top link": [file(".wh.home")],
    "removed link to usr": [file(".wh.lib")],
    "emptied root": [file(".wh..wh..opq")],
    "emptied usr": [file("usr/.wh..wh..opq")],
    "emptied etc": [file("etc/.wh..wh..opq")],
    "emptied with content": [file("usr/x/.wh..wh..opq", 1)],
    "mark in the boot directory": [file("boot/.wh.x")],
    "mark below a file": [FILE, file("usr/file/.wh.x")],
    # types
    "character device": [Header("usr/null", "device")],
    "whiteout of overlayfs": [Header("usr/x", "device", mode=0)],
    "fifo": [Header("usr/pipe", "fifo")],
    "sparse file": [Header("usr/x", "sparse file", 9)],
    "unknown type": [Header("usr/x", "other")],
    "directory with content": [Header("usr", "directory", 512)],
    "symlink with content": [link("usr/x", "y", size=1)],
    # links
    "absolute hard link": [FILE, hard("usr/x", "/usr/file")],
    "hard link through a parent": [FILE, hard("usr/x", "usr/../usr/file")],
    "hard link to what is outside": [hard("usr/x", "../../etc/shadow")],
    "hard link to another layer": [hard("usr/x", "usr/file")],
    "hard link to a later file": [hard("usr/x", "usr/file"), FILE],
    "hard link to itself": [FILE, hard("usr/file", "usr/file")],
    "hard link to a directory": [USR, hard("x", "usr")],
    "hard link to a directory below": [Header("usr/a", "directory"), hard("usr/x", "usr/a")],
    "hard link to what is left out": [file("var/lib/x"), hard("usr/x", "var/lib/x")],
    "hard link to a device": [Header("dev/sda", "device"), hard("usr/x", "dev/sda")],
    "hard link with content": [FILE, hard("usr/x", "usr/file", size=3)],
    "hard link to a mark": [file("usr/.wh.y"), hard("usr/x", "usr/.wh.y")],
    "hard link that is not UTF-8": [hard("usr/x", "usr/\udc80")],
    "hard link to nothing": [hard("usr/x", "")],
    "symlink that leaves the root": [link("usr/x", "../../etc/shadow")],
    "symlink that leaves and comes back": [link("usr/bin/x", "../../../usr/bin/y")],
    "absolute symlink that leaves": [link("usr/x", "/../etc/shadow")],
    "symlink to nothing": [link("usr/x", "")],
    "long symlink": [link("usr/x", "a" * 4001)],
    "symlink that is not UTF-8": [link("usr/x", "\udc80")],
    "symlink with a control character": [link("usr/x", "a\nb")],
    "file below a symlink": [link("usr/x", "/etc"), file("usr/x/passwd")],
    "file below a file": [FILE, file("usr/file/x")],
    "directory below a symlink": [link("usr/x", "share"), Header("usr/x/y", "directory")],
    # the same path again
    "file twice": [FILE, FILE],
    "file that becomes a directory": [FILE, Header("usr/file", "directory")],
    "directory that becomes a link": [Header("usr/a", "directory"), link("usr/a", "b")],
    "file that becomes a link": [FILE, link("usr/file", "x")],
    "file in place of what has files": [file("usr/a/b"), file("usr/a")],
    "link twice": [link("usr/a", "b"), link("usr/a", "b")],
    # the root
    "usr is a link": [link("usr", "var")],
    "etc is a link": [link("etc", "usr/etc")],
    "var is a file": [file("var")],
    "home is a directory": [Header("home", "directory")],
    "home leads elsewhere": [link("home", "tmp")],
    "lib is a directory": [Header("lib", "directory")],
    "lib leads elsewhere": [link("lib", "usr/lib64")],
    "file below home": [file("home/user/.profile")],
    "file below lib": [file("lib/x")],
    "file in the root": [file("vmlinuz")],
    "link in the root": [link("vmlinuz", "usr/x")],
    "kernel in boot": [file("boot/vmlinuz-6.1")],
    "file in sysroot": [file("sysroot/ostree/repo/config")],
    "ostree is a directory": [Header("ostree", "directory")],
    "usr/etc": [Header("usr/etc", "directory")],
    "file in usr/etc": [file("usr/etc/passwd")],
    "the root is a file": [file(".")],
    # numbers
    "negative size": [file("usr/x", -1)],
    "huge file": [file("usr/x", 1 << 50)],
    "huge layer": [file(f"usr/{n}", 16 << 30) for n in range(5)],
    "negative owner": [file("usr/x", uid=-1)],
    "owner that means no change": [file("usr/x", uid=(1 << 32) - 1)],
    "huge group": [file("usr/x", gid=1 << 40)],
    "negative mode": [file("usr/x", mode=-1)],
    "huge mode": [file("usr/x", mode=1 << 20)],
    "mode of another type": [file("usr/x", mode=0o40644)],
    "mode of a device": [file("usr/x", mode=0o20644)],
    # extended attributes
    "attribute of overlayfs": [with_xattr("trusted.overlay.redirect", b"/")],
    "attribute of overlayfs for users": [with_xattr("user.overlay.opaque", b"y", "directory")],
    "attribute of libostree": [with_xattr("user.ostreemeta")],
    "attribute of podman": [with_xattr("user.containers.override_stat")],
    "attribute of the kernel": [with_xattr("security.ima")],
    "attribute without a namespace": [with_xattr("note")],
    "attribute without a name": [with_xattr("")],
    "attribute of user without a name": [with_xattr("user.")],
    "attribute that is no text": [with_xattr("user.\udcff")],
    "attribute with a NUL": [with_xattr("user.a\0b")],
    "long name of an attribute": [with_xattr("user." + "a" * 256)],
    "large attribute": [with_xattr("user.a", bytes(70_000))],
    "many attributes": [Header("usr/x", "file", xattrs=tuple((f"user.{n}", b"") for n in range(65)))],
    "attributes that no header has room for": [
        Header("usr/x", "file", xattrs=tuple((f"user.{n}", bytes(60_000)) for n in range(40)))
    ],
    "attribute whose name no archive can hold": [with_xattr("user.a=b")],
    "attribute twice": [Header("usr/x", "file", xattrs=(("user.a", b"1"), ("user.a", b"2")))],
    "capabilities that are none": [with_xattr("security.capability", b"1")],
    "capabilities of a directory": [with_xattr(*CAPABILITY, kind="directory")],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_refused(case: str):
    with pytest.raises(Unfit) as caught:
        screened(*HOSTILE[case])
    assert str(caught.value).isprintable()
    names = [header.path.encode("utf-8", "backslashreplace").decode() for header in HOSTILE[case]]
    names += [in_tree(name.replace(".wh.", "")) for name in names]  # of what is gone, the path that it had
    assert str(caught.value).startswith(tuple(repr(name[:200]) for name in names))


def test_there_are_cases_enough():
    assert len(HOSTILE) >= 100


def test_a_layer_has_only_so_many_members(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(image_screen, "_MOST_MEMBERS", 10)
    headers = [file(f"var/{n}") for n in range(11)]
    screened(*headers[:10])
    with pytest.raises(Unfit):
        screened(*headers)


@pytest.mark.parametrize(
    "header",
    [
        file("usr/x", xattrs=(("user.a", bytes(60_000)),)),
        link("usr/x", "t" * 4000),
        file("var/" + "/".join(["n" * 200] * 19)),
    ],
)
def test_names_and_attributes_have_a_limit_together(monkeypatch: pytest.MonkeyPatch, header: Header):
    monkeypatch.setattr(image_screen, "_MOST_TEXT", 100_000)
    screen = Screen()
    with pytest.raises(Unfit, match="names and attributes"):
        for number in range(100):
            screen.take(replace(header, path=f"{header.path}{number}"))


# --- what is left out, and what is kept


@pytest.mark.parametrize(
    "header",
    [
        file("var/lib/dpkg/status", 9),
        Header("var/lib", "directory"),
        Header("dev/null", "device"),
        file("run/x"),
        file("tmp/x"),
        file("proc/x"),
        file("sys/x"),
        file("var/.wh.x"),
        file("run/.wh..wh..opq"),
        file(spdx.PATH, 9),
        link("var/x", "../../../y"),
        hard("dev/x", "dev/y"),
        Header("var/pipe", "fifo"),
    ],
)
def test_what_is_a_machines_own_is_left_out(header: Header):
    _screen, kept = screened(USR, header)
    assert [one.path for one in kept] == ["usr"]


def test_the_configuration_has_its_place_in_the_tree():
    _screen, kept = screened(
        Header("./etc", "directory", mode=0o755),
        file("./etc/a", 1),
        hard("./etc/b", "./etc/a"),
        link("etc/c", "../usr/c"),
        file("etcetera/x"),
    )
    assert [(one.path, one.link) for one in kept] == [
        ("usr/etc", ""), ("usr/etc/a", ""), ("usr/etc/b", "usr/etc/a"), ("usr/etc/c", ""), ("etcetera/x", ""),
    ]  # fmt: skip
    assert kept[2].state == kept[1].state
    assert kept[3].state.content == b"../usr/c"


def test_owners_modes_and_attributes_are_kept():
    _screen, (one, two) = screened(
        Header("usr/x", "file", 1, 0o104755, 7, 42, xattrs=(("user.b", b"2"), CAPABILITY)),
        Header("usr/y", "directory", 0, 0o1777, 1, 2),
    )
    assert one.state == FileState("file", 0o4755, 7, 42, b"", (CAPABILITY, ("user.b", b"2")))
    assert two.state == FileState("directory", 0o1777, 1, 2)


def test_the_root_of_a_tree_has_its_form():
    names = {
        **dict.fromkeys(layout.TOP_DIRECTORIES, "directory"),
        "usr": "directory",
        "etc": "directory",
        ".": "directory",
    }
    links = {**layout.TOP_LINKS, "bin": "usr/bin", "lib64": "usr/lib64"}
    headers = [Header(name, kind, mode=0o755) for name, kind in names.items()]  # type: ignore[arg-type]
    screen, kept = screened(*headers, *(link(*pair) for pair in links.items()), Header("snap", "directory"))
    assert len(kept) == len(names) + len(links) + 1
    assert screen.implied == {"usr"} - {"usr"}


def test_directories_that_are_only_implied():
    screen, _kept = screened(file("usr/a/b/c"), Header("usr/a", "directory", mode=0o700), file("etc/x"))
    assert screen.implied == {".", "usr", "usr/a/b", "usr/etc"}


def test_a_directory_may_come_twice():
    _screen, kept = screened(USR, Header("usr", "directory", mode=0o700))
    assert [one.state.mode for one in kept] == [0o755, 0o700]


def test_what_a_layer_takes_away():
    screen, kept = screened(
        USR, file("usr/.wh.a"), file("etc/.wh.b"), file("usr/c/.wh..wh..opq"), file(".wh.snap")
    )
    assert (screen.removed, screen.emptied) == ({"usr/a", "usr/etc/b", "snap"}, {"usr/c"})
    assert [one.path for one in kept] == ["usr"]
    assert "usr/c" not in screen.implied


names = st.text(st.sampled_from("ab./\\\n\0\udcffä~"), max_size=12)
prefixes = st.sampled_from(["", "usr/", "etc/", "./", "/", "../", "lib/", "var/", "usr/.wh.", ".wh."])
texts = st.builds(str.__add__, prefixes, names)


@given(
    st.lists(
        st.builds(
            Header, texts, st.sampled_from(["file", "directory", "symlink", "hard link", "device", "fifo"]),
            st.integers(-1, 3), st.integers(-1, 0o177777), target=texts,
        ), max_size=8,
    )
)  # fmt: skip
def test_whatever_passes_lies_in_the_tree(headers: list[Header]):
    try:
        screen, kept = screened(*headers)
    except Unfit:
        return
    paths = [*(one.path for one in kept), *screen.removed, *screen.emptied, *screen.implied]
    for path in paths:
        parts = path.split("/")
        assert path == "." or not {"", ".", ".."} & set(parts)
        assert parts[0] not in ("etc", "lib", "bin", "boot", "home") or len(parts) == 1
        assert path.encode() and not path.startswith("/")
    assert all(one.link == "" or one.link in {other.path for other in kept} for one in kept)


# --- archives


def archive(
    *members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for member in members:
            info, content = member if isinstance(member, tuple) else (member, b"")
            info.size = len(content) or info.size
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def info(name: str, kind: bytes = tarfile.REGTYPE, **fields) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def read(data: bytes, piece: int = 1 << 20) -> list[tuple[Header, bytes]]:
    stream = io.BytesIO(data)
    return [
        (member.header, b"".join(member.chunks))
        for member in tarreader.members(lambda size: stream.read(min(size, piece)))
    ]


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("piece", [1 << 20, 7])
def test_members_and_their_content(format: int, piece: int):
    contents = [b"", b"x", b"y" * 511, b"z" * 512, b"w" * 513, b"v" * 5000]
    members = [(info(f"usr/{n}", mode=0o644, uid=n), content) for n, content in enumerate(contents)]
    links = [info("usr/l", tarfile.SYMTYPE, linkname="x"), info("usr/h", tarfile.LNKTYPE, linkname="usr/0")]
    found = read(archive(*members, *links, info("usr", tarfile.DIRTYPE), format=format), piece)
    assert [content for _header, content in found] == [*contents, b"", b"", b""]
    assert [header.kind for header, _content in found[-3:]] == ["symlink", "hard link", "directory"]
    assert [header.target for header, _content in found[-3:]] == ["x", "usr/0", ""]
    assert found[3][0] == Header("usr/3", "file", 512, 0o644, 3)


def test_content_that_nobody_reads_is_passed_over():
    data = archive((info("usr/a"), b"a" * 3000), (info("usr/b"), b"b"))
    stream = io.BytesIO(data)
    assert [member.header.path for member in tarreader.members(stream.read)] == ["usr/a", "usr/b"]


def test_long_names_and_attributes_of_any_bytes():
    long = "usr/" + "/".join(["ä" * 40] * 9)
    value = bytes(range(256))
    pax = {"SCHILY.xattr.user.x": value.decode("utf-8", "surrogateescape")}
    ((header, _content),) = read(archive(info(long, pax_headers=pax)))
    assert (header.path, header.xattrs) == (long, (("user.x", value),))
    assert read(archive(info(long), format=tarfile.GNU_FORMAT))[0][0].path == long


def sparse() -> bytes:
    return archive((info("usr/x", pax_headers={"GNU.sparse.major": "0", "GNU.sparse.map": "0,1"}), b"1"))


def with_size(size: bytes) -> bytes:
    """Return an archive whose first header has a size that is written so."""
    header = bytearray(info("usr/x").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)


GOOD = archive((info("usr/x"), b"x" * 600), (info("usr/y"), b"y"))
SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
NEGATIVE = (-4096).to_bytes(12, "big", signed=True)
BROKEN = {
    "nothing": b"",
    "no archive": b"x" * 2048,
    "zeros": bytes(512) + b"x" * 512,
    "cut in a header": GOOD[:100],
    "cut in the content": GOOD[:900],
    "cut behind the content": GOOD[: 512 + 1024],
    "no end": GOOD[: 4 * 512 + 512],
    "rubbish between members": GOOD[: 3 * 512] + b"?" * 512 + GOOD[3 * 512 :],
    "rubbish behind the end": GOOD + b"?",
    "a second archive": GOOD + GOOD,
    "much padding": GOOD + bytes(2 << 20),
    "negative size": with_size(NEGATIVE),
    "huge size": with_size(b"\x80" + b"\0" * 3 + b"\x7f" * 8),
    "huge header": archive(info("usr/x", pax_headers={"comment": "x" * (5 << 20)})),
    "headers without end": b"".join(info("x", tarfile.GNUTYPE_LONGNAME).tobuf() for _ in range(3000)) + GOOD,
    "header for all": archive(),
    "sparse 1.0 without end": archive((info("usr/x", pax_headers=SPARSE), b"9\n")),
    "other attributes": archive(info("usr/x", pax_headers={"LIBARCHIVE.xattr.user.x": "eA"})),
    "lists of access": archive(info("usr/x", pax_headers={"SCHILY.acl.access": "user::rwx"})),
    "size that is none": archive(info("usr/x", pax_headers={"size": "x"})),
    "owner of many digits": archive(info("usr/x", pax_headers={"uid": "9" * 5000})),
}  # fmt: skip
_global = io.BytesIO()
with tarfile.open(
    fileobj=_global, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "etc/shadow"}
) as _tar:
    _tar.addfile(info("usr/x"))
BROKEN["header for all"] = _global.getvalue()


@pytest.mark.parametrize("case", BROKEN)
def test_archives_that_are_refused(case: str):
    with pytest.raises(Unfit):
        for header, _content in read(BROKEN[case]):
            screened(header)


def test_sparse_files_are_known_as_such():
    ((header, _content),) = read(sparse())
    assert header.kind == "sparse file"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (tarfile.CHRTYPE, "device"), (tarfile.BLKTYPE, "device"), (tarfile.FIFOTYPE, "fifo"),
        (tarfile.CONTTYPE, "other"), (b"Z", "other"),
    ],
)  # fmt: skip
def test_types_that_are_no_part_of_a_tree(kind: bytes, name: str):
    ((header, _content),) = read(archive(info("usr/x", kind)))
    assert header.kind == name


@given(st.binary(max_size=2048), st.integers(0, len(GOOD)))
def test_any_bytes_are_read_or_refused(data: bytes, at: int):
    try:
        read(GOOD[:at] + data + GOOD[at + len(data) :])
    except Unfit:
        pass


# --- merging


class Objects:
    """Directory objects in memory. reads: how often one was looked at."""

    def __init__(self) -> None:
        self.listings: dict[str, tuple[dict, dict]] = {}
        self.reads: list[str] = []

    def read(self, contents: str) -> tuple[dict, dict]:
        self.reads.append(contents)
        return self.listings[contents]

    def add(self, tree: dict, path: str = "") -> str:
        """Add a nested tree: name -> text of a file, or a tree; "" is the mode of a directory."""
        files = {name: text for name, text in tree.items() if name and isinstance(text, str)}
        directories = {
            name: (self.add(below, f"{path}/{name}"), below.get("", "plain"))
            for name, below in tree.items()
            if isinstance(below, dict)
        }
        key = f"{len(self.listings)}{path}"
        self.listings[key] = (files, directories)
        return key

    def flat(self, directory, path: str = "") -> dict[str, str]:
        """Return path -> text or mode of a merged tree."""
        files, below = directory.files, directory.directories
        found = {path or ".": directory.metadata}
        if directory.contents:
            files, listed = self.listings[directory.contents]
            below = {name: type(directory)(meta, tree) for name, (tree, meta) in listed.items()}
        found |= {f"{path}/{name}".lstrip("/"): text for name, text in files.items()}
        for name, one in below.items():
            found |= self.flat(one, f"{path}/{name}".lstrip("/"))
        return found


def merged(*layers: dict | tuple[dict, dict]) -> dict[str, str]:
    objects = Objects()
    merge = Merge(objects.read, "none")
    for layer in layers:
        tree, options = layer if isinstance(layer, tuple) else (layer, {})
        implied = frozenset(options.get("implied", ()))
        rest = {key: tuple(options.get(key, ())) for key in ("removed", "emptied")}
        merge.lay(LayerTree(objects.add(tree), tree.get("", "plain"), implied, **rest))
    return objects.flat(merge.root)


def test_later_layers_win():
    found = merged(
        {"": "r", "usr": {"a": "1", "b": "1"}}, {"": "s", "usr": {"": "m", "b": "2", "c": {"d": "2"}}}
    )
    assert found == {".": "s", "usr": "m", "usr/a": "1", "usr/b": "2", "usr/c": "plain", "usr/c/d": "2"}


def test_an_implied_directory_keeps_what_is_known_of_it():
    below = {"": "r", "usr": {"": "m", "a": {"": "n", "x": "1"}}}
    implied = {"implied": [".", "usr", "usr/a", "usr/new"]}
    found = merged(below, ({"usr": {"a": {"y": "2"}, "new": {"z": "2"}}}, implied))
    assert (found["."], found["usr"], found["usr/a"], found["usr/new"]) == ("r", "m", "n", "plain")
    assert merged(({"usr": {"a": {"y": "2"}}}, implied), below)["usr/a"] == "n"


def test_files_and_directories_replace_each_other():
    assert merged({"a": "1", "b": {"x": "1"}}, {"a": {"y": "2"}, "b": "2"}) == {
        ".": "plain", "a": "plain", "a/y": "2", "b": "2",
    }  # fmt: skip


@pytest.mark.parametrize("path", ["usr", "usr/a"])
def test_what_would_be_below_a_link_to_others_is_refused(path: str):
    above = {"usr": {"a": {"y": "2"}}}
    below = {"usr": "1"} if path == "usr" else {"usr": {"a": "1"}}
    with pytest.raises(Unfit, match=repr(path)):
        merged(below, (above, {"implied": [".", "usr", "usr/a"]}))
    assert merged(below, above)["usr/a/y"] == "2"
    assert merged(below, (above, {"implied": [path], "removed": [path]}))["usr/a/y"] == "2"


def test_what_is_taken_away_is_gone_and_may_come_back():
    base = {"usr": {"a": "1", "d": {"": "m", "x": "1", "y": {"z": "1"}}}}
    assert merged(base, ({}, {"removed": ["usr/a", "usr/d", "usr/none", "none/x", "usr/a/x"]})) == {
        ".": "plain", "usr": "plain",
    }  # fmt: skip
    emptied = merged(base, ({"usr": {"d": {"n": "2"}}}, {"emptied": ["usr/d", "none"], "implied": ["usr/d"]}))
    assert emptied == {".": "plain", "usr": "plain", "usr/a": "1", "usr/d": "m", "usr/d/n": "2"}
    assert merged(base, ({}, {"removed": ["usr/a"]}), {"usr": {"a": "3"}})["usr/a"] == "3"


def test_what_no_other_layer_touches_is_not_read():
    objects = Objects()
    big, merge = {f"d{n}": {"x": "1"} for n in range(50)}, Merge(objects.read, "none")
    merge.lay(LayerTree(objects.add({"usr": {"big": big, "a": "1"}}), "plain"))
    merge.lay(LayerTree(objects.add({"usr": {"a": "2"}}), "plain"))
    assert len(objects.reads) <= 6
    assert not [name for name in objects.reads if "big/" in name]


trees = st.recursive(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from("123"), max_size=3),
    lambda inner: st.dictionaries(
        st.sampled_from("abc"), st.one_of(st.sampled_from("123"), inner), max_size=3
    ),
    max_leaves=8,
)


def overlaid(below: dict, above: dict) -> dict:
    """Return what a directory shows when another one is copied over it."""
    result = dict(below)
    for name, one in above.items():
        two = result.get(name)
        result[name] = overlaid(two if isinstance(two, dict) else {}, one) if isinstance(one, dict) else one
    return result


def flattened(tree: dict, path: str = "") -> Iterable[tuple[str, str]]:
    for name, one in tree.items():
        if isinstance(one, dict):
            yield f"{path}{name}", "plain"
            yield from flattened(one, f"{path}{name}/")
        else:
            yield f"{path}{name}", one


@given(st.lists(trees, min_size=1, max_size=4))
def test_merging_is_copying_over(layers: list[dict]):
    expected: dict = {}
    for layer in layers:
        expected = overlaid(expected, layer)
    assert merged(*layers) == {".": "plain", **dict(flattened(expected))}


@given(st.text(st.sampled_from("etcusr/x"), max_size=9))
def test_only_the_configuration_moves(path: str):
    moved = path == "etc" or path.startswith("etc/")
    assert in_tree(path) == (f"usr/{path}" if moved else path)
