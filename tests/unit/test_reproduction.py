"""How two builds differ: what is found, whose it is, and how it is told."""

from __future__ import annotations

import pytest

from apt_ostree.model import reproduction
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.reproduction import Aspect, Difference

FILE = FileState("file", 0o644, content=b"one\ntwo\n")


@pytest.mark.parametrize(
    ("second", "aspects", "text"),
    [
        (ABSENT, (Aspect.ABSENT,), "only in the first build"),
        (FileState("symlink", 0o644, content=b"one\ntwo\n"), (Aspect.TYPE,), "a file and a symlink"),
        (FileState("file", 0o644, content=b"one\n2\n"), (Aspect.CONTENT,), "line 2: 'two' and '2'"),
        (FileState("file", 0o644, content=b"one\n"), (Aspect.CONTENT,), "line 2: 'two' and none"),
        (FileState("file", 0o644, content=b"one\ntwo"), (Aspect.CONTENT,), "from byte 7"),
        (FileState("file", 0o644, content=b"one\n\xff"), (Aspect.CONTENT,), "from byte 4"),
        (FileState("file", 0o4755, content=b"one\ntwo\n"), (Aspect.MODE,), "mode 0644 and 4755"),
        (FileState("file", 0o644, 1, 2, b"one\ntwo\n"), (Aspect.OWNER,), "owner 0:0 and 1:2"),
        (
            FileState("file", 0o644, content=b"one\ntwo\n", xattrs=(("security.capability", b"x"),)),
            (Aspect.XATTR,),
            "security.capability",
        ),
        (FileState("file", 0o600, 1, 2, b"x"), (Aspect.CONTENT, Aspect.MODE, Aspect.OWNER), "owner"),
    ],
)
def test_each_aspect_is_found_and_told(second, aspects, text):
    found = reproduction.compare("/usr/x", FILE, second)
    assert found.aspects == aspects
    assert text in "; ".join(found.texts)
    assert found.to_json()["differs"] == list(aspects)


def test_what_only_the_second_build_has_is_told():
    assert reproduction.compare("/usr/x", ABSENT, FILE).texts == ("only in the second build",)


def test_a_long_line_is_cut():
    first, second = (FileState("file", content=f"{word * 1000}\n".encode()) for word in "ab")
    (text,) = reproduction.compare("/x", first, second).texts
    assert len(text) < 160 and "..." in text


@pytest.mark.parametrize(
    ("first", "second", "place"),
    [
        (b"", b"", 0),
        (b"a", b"ab", 1),
        (b"abc", b"abd", 2),
        (b"x" * 200_000 + b"a", b"x" * 200_000 + b"b", 200_000),
        (b"x" * 65536, b"x" * 65537, 65536),
        (b"x" * 65536 + b"a", b"x" * 65536 + b"ab", 65537),
    ],
)
def test_the_first_byte_that_differs(first, second, place):
    assert reproduction.first_difference(first, second) == place


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/usr/bin/x", ("/usr/bin/x",)),
        ("/usr/etc/x", ("/usr/etc/x", "/etc/x")),
        ("/usr/share/factory/var/lib/x", ("/usr/share/factory/var/lib/x", "/var/lib/x")),
        ("/usr/lib/opt/x", ("/usr/lib/opt/x", "/opt/x")),
    ],
)
def test_what_dpkg_calls_a_path(path, names):
    assert reproduction.shipped_as(path) == names


def differences(number: int, *packages: str) -> list[Difference]:
    return [Difference(f"/usr/{n:02}", (Aspect.MODE,), ("mode",), packages) for n in range(number)]


def test_paths_are_told_by_package_and_what_is_nobodys_comes_last():
    assert reproduction.lines([*differences(2), *differences(1, "b"), *differences(1, "a")]) == [
        *("a:", "  /usr/00: mode"),
        *("b:", "  /usr/00: mode"),
        *("no package:", "  /usr/00: mode", "  /usr/01: mode"),
    ]


def test_many_paths_are_counted():
    told = reproduction.lines(differences(25))
    assert len(told) == 22
    assert told[-1].startswith("and 5 more")
