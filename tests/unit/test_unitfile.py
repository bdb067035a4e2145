"""Which drop-ins of a unit are in force."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.unitfile import DIRECTORIES, drop_in_directories, new_drop_ins

ETC, RUN, USR = (f"{directory}/a.service.d" for directory in DIRECTORIES)
TEXT = FileState("file", 0o644, content=b"[Service]\n")


@pytest.mark.parametrize(
    ("unit", "directories"),
    [
        ("a.service", {"a.service.d", "service.d"}),
        ("a@b.service", {"a@b.service.d", "a@.service.d", "service.d"}),
        ("x-y-z.slice", {"x-y-z.slice.d", "x-.slice.d", "x-y-.slice.d", "slice.d"}),
        ("a.b.socket", {"a.b.socket.d", "socket.d"}),
    ],
)
def test_directories_of_drop_ins(unit: str, directories: set[str]):
    assert drop_in_directories(unit) == directories


@pytest.mark.parametrize(
    ("old", "new", "in_force"),
    [
        ([], {}, []),
        ([f"{USR}/1.conf"], {f"{USR}/1.conf": TEXT}, [f"{USR}/1.conf"]),  # its content alone changes
        ([f"{USR}/1.conf"], {f"{USR}/1.conf": ABSENT}, []),
        ([f"{USR}/1.conf"], {f"{ETC}/1.conf": TEXT}, [f"{ETC}/1.conf"]),  # /etc hides /usr
        ([f"{ETC}/1.conf"], {f"{USR}/1.conf": TEXT}, [f"{ETC}/1.conf"]),
        ([f"{RUN}/1.conf"], {f"{ETC}/1.conf": TEXT, f"{USR}/1.conf": TEXT}, [f"{ETC}/1.conf"]),
        ([f"{RUN}/1.conf"], {f"{USR}/1.conf": TEXT}, [f"{RUN}/1.conf"]),
        ([f"{USR}/2.conf"], {f"{ETC}/10.conf": TEXT}, [f"{ETC}/10.conf", f"{USR}/2.conf"]),  # by name
        ([], {f"{USR}/README": TEXT}, []),
        ([f"{USR}/1.conf"], {"/usr/lib/systemd/system/a.service": TEXT}, [f"{USR}/1.conf"]),
        (["/opt/a.service.d/1.conf"], {f"{USR}/1.conf": TEXT}, [f"{USR}/1.conf"]),
    ],
)
def test_new_drop_ins(old: list[str], new: dict[str, FileState], in_force: list[str]):
    assert new_drop_ins(old, new) == in_force


_paths = st.builds("{}/{}.conf".format, st.sampled_from([ETC, RUN, USR]), st.sampled_from("12"))


@given(st.sets(_paths), st.dictionaries(_paths, st.sampled_from([TEXT, ABSENT])))
def test_of_each_name_the_first_directory_wins(old: set[str], new: dict[str, FileState]):
    present = (old | new.keys()) - {path for path, state in new.items() if state == ABSENT}
    expected = []
    for name in ("1.conf", "2.conf"):
        expected += [f"{d}/{name}" for d in (ETC, RUN, USR) if f"{d}/{name}" in present][:1]
    assert new_drop_ins(sorted(old), new) == expected
