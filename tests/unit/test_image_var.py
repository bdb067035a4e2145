"""The directories and links below the /var of an image, from lines of tmpfiles.d."""

from __future__ import annotations

import pytest

from apt_ostree.model import image_var, layout, tmpfiles
from apt_ostree.model.filestate import FileState

PASSWD = "root:x:0:0::/:/bin/sh\napp:x:900:901::/:/bin/sh\n"
GROUP = "root:x:0:\napp:x:901:\n"
PLAIN = FileState("directory", 0o755)


def paths(*texts: str) -> dict[str, FileState]:
    return image_var.paths(texts, PASSWD, GROUP)


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("d /var/x", PLAIN),
        ("D /var/x - - - -", PLAIN),
        ("q /var/x 1777 root root 30d", FileState("directory", 0o1777)),
        ("d= /var/x/ :0700 :app :app -", FileState("directory", 0o700, 900, 901)),
        ("v /var/x ~2755 7 42", FileState("directory", 0o2755, 7, 42)),
        ("L /var/x - - - - ../run", FileState("symlink", 0o777, content=b"../run")),
        ("L+ /var/x - - - - ../a\\x20b", FileState("symlink", 0o777, content=b"../a b")),
    ],
)
def test_what_a_line_makes(line, state):
    assert paths(line) == {"var/x": state}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# d /var/x",
        "d! /var/x",
        "d /var/%m",
        "d /var/*",
        'd "/var/x y"',
        "d /var",
        "d /run/x",
        "d /variable/x",
        "d /var/x - nobody-known",
        "d /var/x - - nobody-known",
        "f /var/x 0644 root root - text",
        "C /var/x - - - - /usr/share/x",
        "L /var/x",
        "z /var/x 0700",
        "a+ /var/x - - - - user:app:r",
    ],
)
def test_what_makes_nothing_here(line):
    assert paths(line) == {}


def test_parents_come_first_and_the_first_line_counts():
    found = paths(
        "d /var/a/b/c 0700\nL /var/run - - - - ../run\nd /var/run/x\n", "d /var/a/b/c\nd /var/a 0711\n"
    )
    assert list(found) == ["var/a", "var/a/b", "var/a/b/c", "var/run"]
    assert [found[path].mode for path in found] == [0o711, 0o755, 0o700, 0o777]


def test_our_own_lines():
    found = paths(tmpfiles.layout_text())
    assert {path for path, state in found.items() if state.type == "symlink"} == set(layout.SYSIMAGE_LINKS)
    assert found["var/roothome"].mode == 0o700
