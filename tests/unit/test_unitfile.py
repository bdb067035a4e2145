"""Unit files: their syntax, the files they name, and which drop-ins are in force."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.unitfile import (
    DIRECTORIES,
    UnitFile,
    configuration,
    difference,
    drop_in_directories,
    environment_files,
    executables,
    in_tree,
    merged,
    new_drop_ins,
    parse,
    template,
)

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


# --- names and paths


def test_templates():
    names = ("a@1.service", "a@x@y.service", "a@b.c.socket", "a@.service", "a.service", "a-b.timer")
    assert [template(name) for name in names] == [
        "a@.service", "a@.service", "a@.socket", "a@.service", "a.service", "a-b.timer"
    ]  # fmt: skip


def test_paths_by_the_links_of_the_merged_usr():
    for name in ("bin", "sbin", "lib", "lib64"):
        assert merged(f"/{name}/a") == merged(f"/usr/{name}/a") == f"/usr/{name}/a"
    assert [merged(path) for path in ("", "/lib", "/lib32x/a", "/library/a", "/etc/lib/a", "lib/a")] == [
        "", "/lib", "/lib32x/a", "/library/a", "/etc/lib/a", "lib/a"
    ]  # fmt: skip


# --- the syntax


@pytest.mark.parametrize(
    ("texts", "settings"),
    [
        (["[A]\nk=v"], {("A", "k"): ("v",)}),
        (["[A]\nk=1\nk=2\n"], {("A", "k"): ("1", "2")}),
        (["[A]\nk=1\nk=\nk=2\n"], {("A", "k"): ("2",)}),
        (["[A]\nk=1\n", "[A]\nk=\n", "[A]\nk=2"], {("A", "k"): ("2",)}),
        (["[A]\nk=1\n", "[A]\nk= \t\n"], {}),
        (["[A]\nk=1\n[B]\nk=2\n[A]\nk=3\n"], {("A", "k"): ("1", "3"), ("B", "k"): ("2",)}),
        (["k=0\n[A]\nk=1\n", "k=2\n"], {("A", "k"): ("1",)}),
        (["[A]\n  k\t=  a = b  \n"], {("A", "k"): ("a = b",)}),
        (["[A]\n# k=1\n ; k=2\nk=3 # no comment\n"], {("A", "k"): ("3 # no comment",)}),
        (["[A]\nk=a\\\nb\n"], {("A", "k"): ("a b",)}),
        (
            ["[A]\nk=a\\\n# comment \\\n; another\n  b \\\n\nj=1\n"],
            {("A", "k"): ("a   b",), ("A", "j"): ("1",)},
        ),
        (["[A]\nk=a\\\\\nj=b\n"], {("A", "k"): ("a\\\\",), ("A", "j"): ("b",)}),
        (["[A]\nk=a\\\\\\\nb\n"], {("A", "k"): ("a\\\\ b",)}),
        (["[A]\nk=a\\"], {("A", "k"): ("a",)}),
        (["[A]\nk=a\\\n[B]\nj=b"], {("A", "k"): ("a [B]",), ("A", "j"): ("b",)}),
        (["[A]\nword\n=v\nk=1\n"], {("A", "k"): ("1",)}),
        (["[A]\nk=1\n[B\nk=2\n[C]\nk=3"], {("A", "k"): ("1",), ("C", "k"): ("3",)}),
        (["[]\nk=1\n"], {}),
        (["\ufeff[A]\r\nk=a\\\r\nb\r\n"], {("A", "k"): ("a b",)}),
        (["[A]\nk=a\x0bb\u2028c\x85\n"], {("A", "k"): ("a\x0bb\u2028c\x85",)}),
        ([], {}),
    ],
)
def test_parse(texts: list[str], settings: dict[tuple[str, str], tuple[str, ...]]):
    assert parse(texts).settings == settings


def test_last_value_counts():
    found = parse(["[A]\nk=1\nk=2\n"])
    assert (found.get("A", "k"), found.get("A", "x"), found.values("A", "x")) == ("2", "", ())


def test_difference_names_what_differs():
    old = parse(["[A]\nk=1\nl=1\n[X-B]\nk=1\n[Install]\nk=1\n"])
    new = parse(["[A]\nk=1\nk=2\nm=1\n[Install]\nk=2\n"])
    assert difference(old, new) == {("A", "k"), ("A", "l"), ("A", "m"), ("X-B", "k")} == difference(new, old)


@pytest.mark.parametrize(
    ("lines", "programs", "files"),
    [
        ("ExecStart=/usr/bin/a -b c", ["/usr/bin/a"], []),
        ("ExecStart=-/usr/bin/a", ["/usr/bin/a"], []),
        ("ExecStart=@/usr/bin/a /not/a/program /usr/b", ["/usr/bin/a", "/usr/b"], []),
        ("ExecStart=!!/usr/bin/a", ["/usr/bin/a"], []),
        ("ExecStart=|-:+/usr/bin/a", ["/usr/bin/a"], []),
        ("ExecStart=a /usr/share/a/run", ["/usr/share/a/run"], []),
        ("ExecStart=/usr/bin/python3 -u /usr/share/a/a.py", ["/usr/bin/python3", "/usr/share/a/a.py"], []),
        ("ExecStart=/etc/init.d/a start", ["/etc/init.d/a"], []),
        ("ExecStart=/usr/bin/a -c /etc/a.conf", ["/usr/bin/a"], ["/etc/a.conf"]),
        ("ExecStart=/usr/bin/a --config=/etc/a.conf", ["/usr/bin/a"], ["/etc/a.conf"]),
        ("ExecStart=/usr/bin/a -f/etc/a,file:/etc/b", ["/usr/bin/a"], ["/etc/a", "/etc/b"]),
        ('ExecStart=/bin/sh -c "exec a /etc/a.conf; x"', ["/bin/sh"], ["/etc/a.conf"]),
        ("ExecStart=/usr/bin/a ; -/usr/bin/b /usr/c", ["/usr/bin/a", "/usr/bin/b", "/usr/c"], []),
        ("ExecStart=\"/usr/bin/a b\" '/usr/it\\'s' /usr/\\x2d", ["/usr/bin/a b", "/usr/it's", "/usr/-"], []),
        ("ExecStart=/usr/a \"it's /x\" /usr/b", ["/usr/a", "/usr/b"], []),
        ('ExecStart=/usr/a "open', ["/usr/a"], []),
        ("ExecStart=/usr/a 'open \\", ["/usr/a"], []),
        ("ExecStart=-", [], []),
        ("ExecStart=/usr/a\nExecStart=\nExecStart=/usr/b", ["/usr/b"], []),
        ("ExecStartPre=/usr/p\nExecStartPost=/usr/q\nExecReload=/usr/r /usr/p\nExecStop=/usr/s",
         ["/usr/p", "/usr/q", "/usr/r"], []),
        ("ExecStartPre=/usr/p -c /etc/p", ["/usr/p"], []),
        ("EnvironmentFile=-/etc/default/a\nEnvironmentFile=/run/b\nEnvironmentFile=c", [],
         ["/etc/default/a", "/run/b"]),
    ],
)  # fmt: skip
def test_files_of_commands(lines: str, programs: list[str], files: list[str]):
    found = parse([f"[Service]\n{lines}\n"])
    assert list(executables(found)) == programs
    assert list(configuration(found)) == files
    assert set(environment_files(found)) <= set(files)


# --- properties of texts

_texts = st.one_of(st.text(), st.text("[]=\\\n\r#; ab\"'-@/"))
_keys = st.sampled_from(
    ["Description", "ExecStart", "ExecReload", "X-StopIfChanged", "Options", "ListenStream"]
)
_values = st.sampled_from(["", "1", "no", "/usr/bin/a -c /etc/a", "a \\\nb", "x\\\\"])
_settings = st.builds("{}={}".format, _keys, _values)
_headers = st.sampled_from(["[Unit]", "[Service]", "[Install]", "[X-A]", "[Mount]", "[Socket]"])
LINES = st.lists(st.one_of(_headers, _settings), max_size=8).map(lambda lines: ["[Service]", *lines])
_comments = st.sampled_from(["", "  ", "# a", ";b=c", " # [X]", "#\\"])


@given(st.lists(_texts, max_size=3))
def test_parse_is_total(texts: list[str]):
    found = parse(texts)
    assert not difference(found, found)
    assert all(
        section and key and values and all(values) for (section, key), values in found.settings.items()
    )


@given(_texts)
def test_commands_are_total(text: str):
    found = UnitFile({("Service", key): (text,) for key in ("ExecStart", "EnvironmentFile")})
    assert all(path.startswith("/") for path in (*executables(found), *configuration(found)))


@given(LINES, st.data())
def test_comments_and_blankLINES_mean_nothing(lines: list[str], data: st.DataObject):
    commented = []
    for line in lines:
        commented += [*data.draw(st.lists(_comments, max_size=2)), line]
    assert parse(["\n".join(commented)]) == parse(["\n".join(lines)])
    inside = "\n".join(commented).replace("a \\\nb", "a \\\n# c\n ; d \\\nb")
    assert parse([inside]) == parse(["\n".join(lines)])


@given(LINES, LINES)
def test_drop_ins_are_a_continuation_of_the_file(lines: list[str], more: list[str]):
    assert parse(["\n".join(lines), "\n".join(more)]) == parse(["\n".join([*lines, *more])])


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("/opt/vendor/bin/daemon", "/usr/lib/opt/vendor/bin/daemon"),
        ("/var/opt/vendor/daemon", "/usr/lib/opt/vendor/daemon"),
        ("/bin/sh", "/usr/bin/sh"),
        ("/optional", "/optional"),
    ],
)
def test_what_is_below_opt_is_elsewhere_in_a_tree(path, there):
    assert in_tree(path) == there
