"""container lint: each rule with a root directory that keeps it, and with ones that break it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from apt_ostree.cli import main
from apt_ostree.core.container import lint as linting
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import layout, seeds, tmpfiles
from apt_ostree.model.lint import Severity, State
from apt_ostree.model.queries import ContainerLint, ContainerRules
from apt_ostree.model.seeds import Seed
from apt_ostree.system import mountinfo, rootstate
from tests.unit.repos import IS_ROOT, write_files

KERNEL = f"{layout.KERNEL_MODULES}/6.12.1-amd64"
#: Whose the files of a test are.
ME = "" if IS_ROOT else f"me:x:{os.getuid()}:{os.getgid()}::/:/bin/sh\n"
MINE = "" if IS_ROOT else f"me:x:{os.getgid()}:\n"
PASSWD = f"root:x:0:0::/root:/bin/sh\napp:x:900:900::/:/bin/sh\n{ME}"
GROUP = f"root:x:0:\napp:x:900:\n{MINE}"
STATUS = "Package: {}\nStatus: {}\nVersion: 1\nArchitecture: all\nMaintainer: a\nDescription: b\n\n"
KEY = "-----BEGIN PRIVATE KEY-----\nMIIE\n"
FILES = {
    f"{KERNEL}/vmlinuz": "kernel",
    f"{KERNEL}/{layout.INITRAMFS}": "initramfs",
    "usr/lib/ostree/prepare-root.conf": "# why\n[sysroot]\nreadonly=true\n[composefs]\nenabled = maybe\n",
    layout.KERNEL_ARGUMENTS: 'kargs = ["quiet"]\nmatch-architectures = ["x86_64"]\n',
    layout.TMPFILES_LAYOUT: tmpfiles.layout_text(),
    layout.TMPFILES_VAR: "d /var/lib/app - - - -\nL /var/run - - - - ../run\nd /var/log - - - -\n",
    layout.SYSUSERS: "g root 0\nu root 0\nu app 900 - - -\nu me - - - -\n",
    layout.ACCOUNT_IDS: "u app 900\ng app 900\nu gone 901\n",
    f"{layout.DPKG_ADMINDIR}/status": STATUS.format("base", "install ok installed"),
    f"{layout.DPKG_ADMINDIR}/info/base.list": "/.\n/usr\n",
    "etc/passwd": PASSWD,
    "etc/group": GROUP,
    "etc/machine-id": "",
    "ostree": "-> sysroot/ostree",
    "var/lib/dpkg": "-> ../../usr/lib/sysimage/dpkg",
    "var/run": "-> ../run",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root directory of an image in which every rule is kept."""
    for name in ("boot", "dev", "proc", "run", "sys", "sysroot", "tmp", "var/lib/app", "var/log"):
        (tmp_path / name).mkdir(parents=True)
    write_files(tmp_path, FILES)
    return tmp_path


def linted(root: Path, *skip: str) -> dict[str, tuple[str, ...]]:
    """Return the findings of each rule that is broken."""
    found = linting.lint(ContainerLint(rootfs=str(root), skip=skip))
    return {one.rule.name: one.findings for one in found.outcomes if one.state is State.FAILED}


def writes(*names: str, text: str = "x\n") -> Callable[[Path], None]:
    return lambda root: write_files(root, dict.fromkeys(names, text))


def removes(name: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        if (root / name).is_dir() and not (root / name).is_symlink():
            shutil.rmtree(root / name)
        else:
            (root / name).unlink()

    return change


def links(name: str, target: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        if os.path.lexists(root / name):
            removes(name)(root)
        (root / name).symlink_to(target)

    return change


def appends(name: str, text: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        with (root / name).open("a") as stream:
            stream.write(text)

    return change


def _not_utf8(root: Path) -> None:
    (root / "usr" / os.fsdecode(b"bad\xff")).touch()
    (root / "usr/link").symlink_to(os.fsdecode(b"to\xff"))


def _private(root: Path) -> None:
    (root / "var/lib/app/secret").mkdir(mode=0)


BREAKS = [
    ("api-base-directories", removes("sys"), ["/sys is no directory"]),
    ("api-base-directories", links("tmp", "var/tmp"), ["/tmp is no directory"]),
    ("baseimage-root", removes("sysroot"), ["/sysroot is no directory"]),
    ("baseimage-root", removes("ostree"), ["/ostree is no link to sysroot/ostree"]),
    ("baseimage-root", links("ostree", "/sysroot/ostree"), ["/ostree is no link to sysroot/ostree"]),
    (
        "bootc-kargs",
        writes("usr/lib/bootc/kargs.d/x.toml", text='kargs = "quiet"\nmore = 1\n'),
        ["/usr/lib/bootc/kargs.d/x.toml: unknown key more",
         "/usr/lib/bootc/kargs.d/x.toml: kargs is not a list of strings"],
    ),
    (
        "bootc-kargs",
        writes("usr/lib/bootc/kargs.d/x.toml", text="match-architectures = [1]\n"),
        ["/usr/lib/bootc/kargs.d/x.toml: kargs is not a list of strings",
         "/usr/lib/bootc/kargs.d/x.toml: match-architectures is not a list of strings"],
    ),
    ("etc-usretc", writes("usr/etc/x"), ["/usr/etc is beside /etc, of which a deployment makes it"]),
    (
        "kernel",
        writes(f"{layout.KERNEL_MODULES}/7/vmlinuz", f"{layout.KERNEL_MODULES}/7/{layout.INITRAMFS}"),
        [f"/{KERNEL}/vmlinuz", f"/{layout.KERNEL_MODULES}/7/vmlinuz"],
    ),
    ("utf8", _not_utf8, ["/usr/bad\\xff", "/usr/link is a link to to\\xff"]),
    ("buildah-injected", writes("etc/hostname", "etc/resolv.conf", text=""),
     ["/etc/hostname is empty", "/etc/resolv.conf is empty"]),
    ("nonempty-boot", writes("boot/a/b"), ["/boot/a/b"]),
    ("nonempty-boot", removes("boot"), ["/boot is no directory"]),
    ("nonempty-run-tmp", writes("run/a/b", "run/a/c", "tmp/d"), ["/run/a/b", "/run/a/c", "/tmp/d"]),
    ("sysusers", appends("etc/passwd", "new:x:902:900::/:/bin/sh\n"), ["the user new"]),
    ("sysusers", appends("etc/group", "new:x:902:\n"), ["the group new"]),
    ("account-ids", writes("etc/passwd", text=PASSWD.replace("app:x:900", "app:x:905")),
     ["user app: 900 before, 905 now"]),
    ("dpkg-database", links("var/lib/ucf", "elsewhere"),
     ["/var/lib/ucf is no link to /usr/lib/sysimage/ucf"]),
    ("initramfs", removes(f"{KERNEL}/{layout.INITRAMFS}"),
     [f"/{KERNEL} has a kernel and no initramfs.img"]),
    ("machine-state", writes("etc/machine-id"), ["/etc/machine-id has an id: x"]),
    ("machine-state", writes("etc/app/key", text=KEY), ["/etc/app/key: a private key"]),
    ("packages", appends(f"{layout.DPKG_ADMINDIR}/status", STATUS.format("a", "install ok half-configured")),
     ["a is half-configured"]),
    ("top-level", writes("data/x"), ["/data"]),
]  # fmt: skip


def test_an_image_that_keeps_all_rules(root):
    assert linted(root) == {}


@pytest.mark.parametrize(("rule", "change", "findings"), BREAKS, ids=[rule for rule, *_ in BREAKS])
def test_a_rule_is_broken(root, rule, change, findings):
    change(root)
    assert linted(root)[rule] == tuple(sorted(findings))
    assert rule not in linted(root, rule)


@pytest.mark.parametrize("text", ["kargs = [", "kargs = []\nkargs = []\n"])
def test_kernel_arguments_are_toml(root, text):
    write_files(root, {"usr/lib/bootc/kargs.d/x.toml": text, "usr/lib/bootc/kargs.d/other": "kargs = ["})
    (finding,) = linted(root)["bootc-kargs"]
    assert finding.startswith("/usr/lib/bootc/kargs.d/x.toml: ")


@pytest.mark.parametrize(
    ("text", "is_on"),
    [
        ("[composefs]\nenabled=yes\n", True),
        ("[composefs]\nenabled=signed\n", True),
        ("[root]\ntransient=true\n", True),
        ("[composefs]\nenabled=no\n", False),
        ("[sysroot]\nreadonly=true\n", False),
        ("enabled=yes\n", False),
        ("", False),
    ],
)
def test_composefs_is_on(root, text, is_on):
    write_files(root, {"usr/lib/ostree/prepare-root.conf": text})
    assert ("baseimage-composefs" not in linted(root)) == is_on


def test_logs_and_other_files_of_var(root):
    write_files(root, {"var/log/app/a.log": "line\n", "var/log/empty.log": "", "var/lib/app/data": "x"})
    (root / "var/lib/new").mkdir()
    found = linted(root)
    assert found["var-log"] == ("/var/log/app/a.log",)
    assert found["var-tmpfiles"] == (
        "/var/lib/app/data is no directory and no link",
        "/var/lib/new",
        "/var/log/app",
        "/var/log/app/a.log is no directory and no link",
        "/var/log/empty.log is no directory and no link",
    )
    assert found["seeds"] == ("/var/lib/app/data",)
    given = {"1": Seed("/var/lib/app", {"data": "digest"})}
    write_files(root, {layout.SEEDS: seeds.format_seeds(given), "etc/tmpfiles.d/a.conf": "d /var/lib/new\n"})
    found = linted(root)
    assert "seeds" not in found and "/var/lib/new" not in found["var-tmpfiles"]


def test_var_run_is_a_directory(root):
    removes("var/run")(root)
    assert "var-run" not in linted(root)
    (root / "var/run").mkdir()
    assert linted(root)["var-run"] == ("/var/run is no link",)


def test_files_of_nobody(root):
    if IS_ROOT:
        os.chown(root / "etc/passwd", 0, 7777)
        assert linted(root)["file-owners"] == ("/etc/passwd belongs to 0:7777",)
    else:
        write_files(root, {"etc/group": GROUP.removesuffix(MINE)})
        assert any(line.endswith(f":{os.getgid()}") for line in linted(root)["file-owners"])


def test_what_packages_made_for_one_machine(root):
    write_files(root, {
        f"{layout.DPKG_ADMINDIR}/status": STATUS.format("openssh-server", "install ok installed")
        + STATUS.format("app", "install ok installed"),
        "etc/ssh/ssh_host_rsa_key": "key",
        "etc/app/id": "x",
        "etc/app/shared": KEY,
        layout.DEFERRED: '{"app": ["/etc/app/id"]}',
        layout.SHARED: "/etc/app/shar*\n",
    })  # fmt: skip
    assert linted(root) == {
        "machine-state": ("/etc/app/id is of app", "/etc/ssh/ssh_host_rsa_key is of openssh-server")
    }


def test_a_database_that_is_not_there(root):
    removes(f"{layout.DPKG_ADMINDIR}/status")(root)
    assert linted(root) == {"dpkg-database": ("/usr/lib/sysimage/dpkg/status is missing",)}


def test_what_is_mounted_is_not_in_the_image(root, monkeypatch):
    write_files(root, {
        "run/.containerenv": "", "run/secrets/a/b": "x", "etc/resolv.conf": "", "proc/1/x": "x",
        "tmp/x": "", "var/cache/apt/x": "x", "run/systemd/resolve/stub-resolv.conf": "", "ctx/x": "",
    })  # fmt: skip
    (root / os.fsdecode(b"proc/bad\xff")).touch()
    targets = (
        "run/.containerenv", "run/secrets/a", "etc/resolv.conf", "proc", "tmp", "ctx", "var/cache",
    )  # fmt: skip
    mounts = [
        mountinfo.MountPoint(n, 1, "/", str(root / target), "tmpfs", "x", "rw", "rw")
        for n, target in enumerate(targets, 10)
    ]
    monkeypatch.setattr(rootstate.mountinfo, "read", lambda: tuple(mounts))
    assert linted(root) == {}


@pytest.mark.skipif(IS_ROOT, reason="root can read all")
def test_what_cannot_be_read_breaks_the_rule_about_it(root):
    _private(root)
    found = linted(root)
    assert found["utf8"] == (f"{root}/var/lib/app/secret cannot be read: Permission denied; root can",)
    (root / "var/lib/app/secret").chmod(0o700)


def test_what_is_no_file_breaks_the_rule_about_it(root):
    (root / "usr/lib/bootc/kargs.d/20-x.toml").mkdir()
    (root / "usr/lib/bootc/kargs.d/30-x.toml").symlink_to("nothing")
    assert "Is a directory" in linted(root)["bootc-kargs"][0]


def test_what_is_no_image_is_refused(tmp_path, root):
    with pytest.raises(UsageError, match="no directory usr"):
        linted(tmp_path / "etc")
    with pytest.raises(UsageError, match="no rule 'nosuch'"):
        linted(root, "nosuch")
    (root / "etc").rename(root / "usr/etc")
    with pytest.raises(Refused, match="form of a tree"):
        linted(root)


def test_the_rules_of_bootc_are_there_by_name():
    rules = linting.rules(ContainerRules())
    names = {severity: {rule.name for rule in rules if rule.severity is severity} for severity in Severity}
    assert names[Severity.FATAL] >= {
        "api-base-directories", "baseimage-root", "bootc-kargs", "etc-usretc", "kernel", "utf8", "var-run",
    }  # fmt: skip
    assert names[Severity.WARNING] >= {
        "baseimage-composefs", "buildah-injected", "nonempty-boot", "nonempty-run-tmp", "sysusers", "var-log",
        "var-tmpfiles",
    }  # fmt: skip
    broken = {rule for rule, _change, _findings in BREAKS}
    assert {rule.name for rule in rules} - broken == {
        "baseimage-composefs", "file-owners", "seeds", "var-log", "var-run", "var-tmpfiles",
    }  # fmt: skip  # which have tests of their own


# --- what is below the directory, and nothing else


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory beside the root, with what must not be read."""
    path = tmp_path_factory.mktemp("outside")
    write_files(path, {
        "passwd": "secret:x:902:902::/:/bin/sh\n", "x.toml": "secret = 1\n", "a.conf": "d /var/secret\n",
        "status": STATUS.format("secret", "install ok half-configured"), "log/secret.log": "x",
        "ssh/ssh_host_rsa_key": KEY, "6.1/vmlinuz": "secret",
    })  # fmt: skip
    return path


def up(root: Path, target: Path) -> str:
    """Return a relative link from a directory of depth one to what is outside."""
    return "../" * (len(root.parts) + 5) + str(target).lstrip("/")


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("etc/passwd", "passwd"),
        ("usr/lib/bootc/kargs.d", "."),
        ("usr/lib/bootc/kargs.d/30-x.toml", "x.toml"),
        ("usr/lib/tmpfiles.d", "."),
        ("usr/lib/modules", "."),
        ("var", "."),
        ("var/log", "log"),
        ("etc/ssh", "ssh"),
        (f"{layout.DPKG_ADMINDIR}/status", "status"),
        (layout.DPKG_ADMINDIR, "."),
        ("usr/lib/sysimage", "."),
        (layout.ACCOUNT_IDS, "passwd"),
        ("etc/machine-id", "passwd"),
    ],
)
def test_links_lead_nowhere_outside(root, outside, name: str, target: str, relative: bool):
    place = outside / target
    links(name, up(root, place) if relative else str(place))(root)
    assert "secret" not in repr(linted(root)) and "ssh_host" not in repr(linted(root))


def test_links_lead_where_they_would_on_the_machine(root):
    write_files(root, {"usr/share/passwd": PASSWD + "new:x:902:900::/:/bin/sh\n"})
    links("etc/passwd", "/usr/share/passwd")(root)
    assert linted(root)["sysusers"] == ("the user new",)
    links("etc/passwd", "../../../usr/share/passwd")(root)
    assert linted(root)["sysusers"] == ("the user new",)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("etc/passwd", "sysusers"),
        ("usr/lib/bootc/kargs.d/30-x.toml", "bootc-kargs"),
        ("usr/lib/tmpfiles.d/x.conf", "var-tmpfiles"),
        ("usr/lib/ostree/prepare-root.conf", "baseimage-composefs"),
        (f"{layout.DPKG_ADMINDIR}/info/base.list", "machine-state"),
        (layout.SEEDS, "seeds"),
    ],
)
def test_a_pipe_holds_nothing_up(root, name: str, rule: str):
    if os.path.lexists(root / name):
        removes(name)(root)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(root / name)
    (finding,) = linted(root)[rule]
    assert finding.endswith(f"{name} cannot be read: it is no regular file")


def test_a_huge_file_is_not_read(root):
    with (root / "etc/passwd").open("r+b") as stream:
        stream.truncate(1 << 40)
    (finding,) = linted(root)["sysusers"]
    assert "etc/passwd cannot be read: it has more than" in finding


def test_a_list_that_is_masked_is_empty(root):
    links("usr/lib/tmpfiles.d/x.conf", "/dev/null")(root)
    assert linted(root) == {}


def test_a_directory_usr_that_is_a_link(root, outside):
    shutil.rmtree(root / "usr")
    links("usr", "/usr")(root)
    with pytest.raises(UsageError, match="no directory usr"):
        linted(root)


# --- the command line


def run(capsys, *words: str) -> tuple[int, str]:
    code = main.run(["container", "lint", *words])
    return code, capsys.readouterr().out


def test_exit_codes(root, capsys):
    where = f"--rootfs={root}"
    assert run(capsys, where, "--fatal-warnings") == (0, "22 rules passed\n")
    write_files(root, {f"boot/{n}": "" for n in range(7)})
    code, out = run(capsys, where)
    assert code == 0 and out.splitlines() == [
        "warning: nonempty-boot: /boot is an empty directory.",
        *(f"  /boot/{n}" for n in range(5)),
        "  and 2 more (--no-truncate)",
        "21 rules passed, 1 warning",
    ]
    assert "  /boot/6" in run(capsys, where, "--no-truncate")[1]
    assert run(capsys, where, "--fatal-warnings")[0] == 1
    assert run(capsys, where, "--fatal-warnings", "--skip=nonempty-boot") == (
        0,
        "21 rules passed, 1 skipped\n",
    )
    (root / "sysroot").rmdir()
    code, out = run(capsys, where, "--skip=utf8")
    assert code == 1 and out.endswith("19 rules passed, 1 skipped, 1 warning, 1 fatal error\n")


def test_documents(root, capsys):
    (root / "sysroot").rmdir()
    code, out = run(capsys, f"--rootfs={root}", "--skip=utf8", "--json")
    document = json.loads(out)
    assert code == 1
    assert {name: document[name] for name in ("failed", "warnings", "skipped", "passed")} == {
        "failed": 1, "warnings": 0, "skipped": 1, "passed": 20,
    }  # fmt: skip
    (failed,) = (rule for rule in document["rules"] if rule["state"] == "failed")
    assert (failed["name"], failed["severity"], failed["findings"]) == (
        "baseimage-root", "fatal", ["/sysroot is no directory"],
    )  # fmt: skip
    rules = json.loads(run(capsys, "--list", "--json")[1])
    assert [rule["name"] for rule in rules] == [rule["name"] for rule in document["rules"]]
    assert "nonempty-boot" in run(capsys, "--list")[1]
