"""Debian's tools on a booted deployment: what they are run for, and what apt-ostree does instead."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from apt_ostree.system import process
from apt_ostree.wrappers import main, words
from apt_ostree.wrappers.table import TOOLS, decide

ROOT = Path(__file__).resolve().parents[2]
WRAPPERS = ROOT / "data/wrappers"

#: Command lines that the tools themselves carry out.
RUN = """
apt
apt --version
apt list --upgradable
apt show -a nginx
apt search -n nginx
apt policy nginx
apt depends nginx
apt-get update
apt-get clean
apt edit-sources
apt-get download nginx
apt-get source nginx
apt-get changelog nginx
apt-get indextargets --format $(URI)
apt-get -s install nginx
apt-get install --dry-run nginx
apt-get -qy -s -t sid full-upgrade
apt-get --print-uris install nginx
apt-get install -d nginx
apt install --help
apt-get -o Dir=/mnt install nginx
apt-get -oRootDir=/mnt dist-upgrade
apt-get -c other.conf install nginx
apt-mark showhold
apt-mark -s hold nginx
dpkg
dpkg -l
dpkg -l fx*
dpkg -L nginx
dpkg -S /usr/bin/xz
dpkg -s nginx
dpkg -V
dpkg --audit
dpkg --print-architecture
dpkg --print-foreign-architectures
dpkg --compare-versions 1 lt 2
dpkg --validate-version 1
dpkg --assert-multi-arch
dpkg --get-selections
dpkg -b tree x.deb
dpkg -x x.deb /tmp/x
dpkg -I x.deb
dpkg -c x.deb
dpkg -W -f=${Package}
dpkg --license
dpkg --licence
dpkg --debug=help
dpkg --debug help
dpkg -Dh
dpkg -Dhelp -i x.deb
dpkg --no-act -i x.deb
dpkg --root=/mnt -i x.deb
dpkg --root /mnt --purge nginx
dpkg --admindir=/mnt/var/lib/dpkg --configure -a
dpkg-divert --list
dpkg-divert --truename /usr/bin/xz
dpkg-divert --test /usr/bin/xz
dpkg-divert --root /mnt --add /usr/bin/xz
dpkg-reconfigure --help
dpkg-statoverride --list
update-alternatives --display editor
update-alternatives --query editor
update-alternatives --list editor
update-alternatives --get-selections
update-alternatives --set editor /usr/bin/vim --root /mnt
update-alternatives --altdir /mnt/a --admindir /mnt/b --set editor /usr/bin/vim
"""

#: Command lines, and what is run instead of them.
DONE = """
apt install nginx                              | install nginx
apt-get -qq -y install nginx:amd64=1.0 g++     | install -q -y nginx:amd64=1.0 g++
apt install nginx apache2- ./tool.deb          | install nginx ./tool.deb --uninstall=apache2
apt-get install -y -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold x1 | install -y x1
apt-get -oDPkg::Options::=--force-confold dist-upgrade | upgrade
apt install apache2-                           | uninstall apache2
apt-get --purge remove nginx                   | uninstall nginx
apt purge -y nginx                             | uninstall -y nginx
apt autoremove nginx                           | uninstall nginx
apt install --no-install-recommends nginx      | install --no-recommends nginx
apt-get install nginx --install-recommends     | install --recommends nginx
apt upgrade                                    | upgrade
apt-get -y dist-upgrade                        | upgrade -y
apt full-upgrade                               | upgrade
apt-mark hold nginx                            | run apt-mark hold nginx
dpkg -i x.deb ./y.deb                          | install x.deb ./y.deb
dpkg --force-confold -i x.deb                  | install x.deb
dpkg -r nginx                                  | uninstall nginx
dpkg --purge nginx                             | uninstall nginx
dpkg --add-architecture i386                   | run dpkg --add-architecture i386
dpkg-divert /usr/bin/xz                        | run dpkg-divert /usr/bin/xz
dpkg-divert --rename --add /usr/bin/xz         | run dpkg-divert --rename --add /usr/bin/xz
dpkg-statoverride --add root root 0700 /bin/xz | run dpkg-statoverride --add root root 0700 /bin/xz
update-alternatives --set editor /usr/bin/vim  | run update-alternatives --set editor /usr/bin/vim
update-alternatives --auto editor              | run update-alternatives --auto editor
update-alternatives --auto editor --root /     | run update-alternatives --auto editor --root /
dpkg-divert --add /x --root /mnt               | run dpkg-divert --add /x --root /mnt
"""

#: Command lines that are only explained, and the nearest command, if there is one.
EXPLAINED = """
apt upgrade --no-install-recommends       | upgrade
apt remove --install-recommends nginx     | uninstall nginx
dpkg -i --no-install-recommends x.deb     | install x.deb
apt install -t sid nginx                  | install nginx
apt install nginx/sid                     | install nginx/sid
apt install ~nginx                        | install ~nginx
apt install nginx -                       | install nginx -
apt install -                             | install -
apt install nginx ~x-                     | install nginx ~x-
apt install nginx =-                      | install nginx =-
apt install http://x/foo.deb              | install http://x/foo.deb
apt-get -o Dpkg::Options::=--force-confnew upgrade | upgrade
apt-get -o Dpkg::Options=--force-confold upgrade | upgrade
apt-get -o Dpkg::Options::=--purge upgrade | upgrade
dpkg -i tool-                             | install tool-
dpkg -D1 -i x.deb                         | install x.deb
dpkg -i x.deb -Dh                         | install x.deb -Dh
apt-get install --yes=no nginx            | install nginx
apt upgrade nginx                         | upgrade
apt reinstall nginx                       |
apt build-dep nginx                       |
apt frobnicate nginx                      |
apt-get -s --no-simulate install nginx    | install nginx
apt-get --simulate=no install nginx       | install nginx
apt-get install -s nginx no               | install nginx no
apt-get -s -o APT::Get::Simulate=0 install nginx | install nginx
apt-get -o Dir=/ install nginx            | install nginx
apt-get -o APT::Foo=list install nginx    | install nginx
dpkg -i                                   |
dpkg -iR tree                             | install tree
dpkg -i tool                              | install tool
dpkg -i -- -A.deb                         | install -A.deb
dpkg -i x.deb --no-act                    | install x.deb --no-act
dpkg --root=// -i x.deb                   | install x.deb
dpkg --admindir /var/lib/dpkg/ -r nginx   | uninstall nginx
dpkg -r nginx --root=/mnt                 | uninstall nginx --root=/mnt
dpkg --unpack x.deb                       |
dpkg --configure -a                       |
dpkg --set-selections                     |
dpkg --frobnicate                         |
dpkg -i -l                                |
dpkg-divert --frobnicate                  |
dpkg-reconfigure -f teletype tzdata       | run dpkg-reconfigure -f teletype tzdata
update-alternatives --config editor       | run update-alternatives --set editor PATH
update-alternatives --all                 | run update-alternatives --set NAME PATH
"""


def lines(text: str) -> list[list[str]]:
    return [[part.strip() for part in line.split("|")] for line in text.strip().splitlines()]


def decided(line: str, **environment: str):
    name, *arguments = line.split()
    return decide(name, arguments, environment)


@pytest.mark.parametrize(("line",), lines(RUN))
def test_what_changes_no_deployment_is_run(line: str):
    assert decided(line) is None


@pytest.mark.parametrize(("line", "command"), lines(DONE))
def test_a_change_has_a_command(line: str, command: str):
    instead = decided(line)
    assert instead and instead.exact
    assert shlex.join(instead.command) == command
    assert f"apt-ostree {command}\n" in main.explanation(line.split()[0], instead)


@pytest.mark.parametrize(("line", "command"), lines(EXPLAINED))
def test_what_has_no_such_command_is_only_explained(line: str, command: str):
    instead = decided(line)
    assert instead and not instead.holds and instead.note
    assert not (instead.command and instead.exact)
    assert " ".join(instead.command) == command


@pytest.mark.parametrize("line", ["apt autoremove", "apt-get -y -f install"])
def test_what_holds_already_is_no_failure(line: str):
    instead = decided(line)
    assert instead and instead.holds and not instead.command


def test_the_environment_names_another_system():
    assert decided("apt-get install nginx", APT_CONFIG="/tmp/other.conf") is None
    assert decided("dpkg -i x.deb", DPKG_ROOT="/mnt") is None
    assert decided("dpkg-divert --add /x", DPKG_ADMINDIR="/mnt/var/lib/dpkg") is None
    assert decided("dpkg -i x.deb", DPKG_ROOT="/", DPKG_ADMINDIR="/var/lib/dpkg")


@pytest.mark.parametrize("line", ["dpkg --root=. -i x.deb", "apt-get -o RootDir=. install nginx"])
def test_a_relative_directory_is_another_system_but_at_the_root(line: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert decided(line) is None
    monkeypatch.chdir("/")
    assert decided(line) is not None
    monkeypatch.chdir("/usr")
    assert decided(line) is None
    assert decided(line.replace("=.", "=..")) is not None


def test_a_relative_database_is_that_of_another_system(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert decided("dpkg --admindir=. -i x.deb") is None
    assert decided("dpkg --admindir=var/lib/dpkg -i x.deb") is None
    monkeypatch.chdir("/")
    assert decided("dpkg --admindir=var/lib/dpkg -i x.deb") is not None


# --- rules

TEXTS = st.text("abcnyo=:-/.", max_size=6)
ARGUMENTS = st.lists(
    st.one_of(
        TEXTS, st.sampled_from(["-y", "-qq", "--", "-t", "-o", "APT::X=list", "--force-all", "list", "-l"])
    )
)


def changes() -> list[tuple[str, str]]:
    return [(name, action) for name, tool in TOOLS.items() for action in tool.changes if not tool.tried]


@given(st.sampled_from(changes()), ARGUMENTS)
def test_no_argument_after_it_makes_a_change_pass(change: tuple[str, str], arguments: list[str]):
    """Unless it is one of those that say so."""
    name, action = change
    tool = TOOLS[name]
    line = words.split(arguments, tool.valued, options_first=not tool.anywhere)
    assume(not any(option.name in tool.trying | {"-c", "--config-file"} for option in line.options))
    assert decide(name, [action, *arguments], {}) is not None


@given(st.sampled_from(changes()), st.lists(st.sampled_from(["-y", "-q", "--quiet", "-qq", "--frob"])))
def test_no_option_before_it_makes_a_change_pass(change: tuple[str, str], options: list[str]):
    name, action = change
    assert decide(name, [*options, action, "x"], {}) is not None


@given(st.sampled_from(sorted(TOOLS)), st.text("abcdefghij", min_size=2), st.lists(TEXTS))
def test_an_unknown_action_is_not_run(name: str, action: str, arguments: list[str]):
    tool = TOOLS[name]
    action = f"--{action}" if tool.by_option else action
    assume(action not in tool.reads | tool.own | set(tool.changes) and not tool.tried)
    assume(not tool.by_option or not any(argument.startswith("-") for argument in arguments))
    line = words.split(arguments, tool.valued, options_first=not tool.anywhere)
    assume(not any(option.name in tool.trying | tool.elsewhere for option in line.options))
    instead = decide(name, [action, *arguments], {})
    assert instead and (tool.default or not instead.command)


@given(st.lists(TEXTS), st.booleans())
def test_splitting_keeps_the_order_of_words(arguments: list[str], first: bool):
    line = words.split(arguments, {"-o"}, options_first=first)
    rest = iter(arguments)
    assert all(word in rest for word in line.words)  # a subsequence
    if not any(argument.startswith("-") and len(argument) > 1 for argument in arguments):
        assert list(line.words) == arguments
    assert words.split(["--", *arguments], {"-o"}, options_first=first).words == tuple(arguments)


def test_options_have_the_values_that_were_given():
    line = words.split(["-yoA=b", "-o", "C", "-q2", "-f=x", "--a=b", "-t"], {"-o", "-t"}, options_first=False)
    assert [tuple(option) for option in line.options] == [
        ("-y", None), ("-o", "A=b"), ("-o", "C"), ("-q", "2"), ("-f", "x"), ("--a", "b"), ("-t", None),
    ]  # fmt: skip
    assert line.words == ()


@pytest.mark.parametrize("tool", TOOLS.values())
def test_an_action_is_of_one_kind(tool):
    kinds = (tool.reads, tool.own, frozenset(tool.changes))
    assert len(frozenset().union(*kinds)) == sum(map(len, kinds))
    assert all(not tool.by_option or name.startswith("-") for name in tool.reads)


# --- the program


def test_each_tool_has_its_link():
    links = {path.name for path in (WRAPPERS / "sbin").iterdir()}
    assert links | {"dpkg-reconfigure"} == set(TOOLS)  # which is a file, see debian/rules


def test_without_a_deployment_the_tool_itself_is_run(tmp_path: Path):
    if Path("/run/ostree-booted").exists():
        pytest.skip("this machine was booted from OSTree")
    (tmp_path / "dpkg").symlink_to(WRAPPERS / "package-tool")
    for command in (["--print-architecture"], ["--frobnicate"], ["-l", "a  b", ""]):
        done = [
            subprocess.run([program, *command], capture_output=True, check=False)
            for program in (tmp_path / "dpkg", "/usr/bin/dpkg")
        ]
        assert len({(run.returncode, run.stdout, run.stderr) for run in done}) == 1


def test_programs_of_ours_run_the_tools_themselves():
    assert process.environment()["APT_OSTREE_WRAP"] == "off"


def test_reading_imports_little():
    code = "import sys; sys.path.append('src'); import apt_ostree.wrappers.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-IS", "-c", code], cwd=ROOT, capture_output=True, check=True)
    loaded = done.stdout.decode().split()
    assert {name.split(".")[1] for name in loaded if name.startswith("apt_ostree.")} == {"wrappers"}
    assert not {"inspect", "subprocess", "pathlib", "shlex", "argparse"} & set(loaded)


def run_main(
    monkeypatch, line: str, program: str, *, mode: str = "", status: int = 1
) -> tuple[int | None, list[list[str]]]:
    """Return the exit code, and what was run in the place of the wrapper.

    status: what a tool that is tried ends with, except for /bin/true.
    """
    run: list[list[str]] = []

    def execute(path: str, command: list[str]) -> None:
        run.append([path, *command[1:]])
        raise SystemExit(None)

    monkeypatch.setattr(os, "execv", execute)
    monkeypatch.setattr(os, "spawnv", lambda _mode, path, _command: 0 if path == "/bin/true" else status)
    monkeypatch.setenv("APT_OSTREE_WRAP", mode)
    name, *arguments = line.split()
    monkeypatch.setattr(sys, "argv", ["-c", name, program, *arguments])
    with pytest.raises(SystemExit) as ended:
        main.main()
    code = ended.value.code
    assert code is None or isinstance(code, int)
    return code, run


CALLS = [
    ("apt list -a", "", None, ["/real", "list", "-a"]),
    ("apt install -y fx-hello", "", 3, None),
    ("apt install -y fx-hello", "explain", 3, None),
    ("apt install -y fx-hello", "of", 3, None),
    ("apt install -y x1", "do", None, ["/usr/bin/apt-ostree", "install", "-y", "x1", "--idempotent"]),
    ("apt install -t sid fx-hello", "do", 3, None),
    ("apt install x1 y1-", "do", None, ["/usr/bin/apt-ostree", "install", "x1", "--uninstall=y1"]),
    ("apt remove x1", "do", None, ["/usr/bin/apt-ostree", "uninstall", "x1"]),
    ("apt upgrade", "do", None, ["/usr/bin/apt-ostree", "upgrade"]),
    ("dpkg --configure -a", "do", 3, None),
    ("apt autoremove", "", 0, None),
]


@pytest.mark.parametrize(("line", "mode", "code", "command"), CALLS)
def test_the_environment_decides(
    monkeypatch, line: str, mode: str, code: int | None, command: list[str] | None
):
    assert run_main(monkeypatch, line, "/real", mode=mode) == (code, [command] if command else [])


@pytest.mark.parametrize("mode", ["", "do"])
def test_a_configuration_is_tried_and_keeps_its_exit_code(monkeypatch, capsys, mode: str):
    line = "dpkg-reconfigure tzdata"
    assert run_main(monkeypatch, line, "/bin/true", mode=mode) == (0, [])
    assert not capsys.readouterr().err
    for status in (1, 30):
        assert run_main(monkeypatch, line, "/bin/false", mode=mode, status=status) == (status, [])
        told = capsys.readouterr().err
        assert "apt-ostree run dpkg-reconfigure tzdata\n" in told and "not done" not in told
    assert run_main(monkeypatch, line, "/bin/false", mode=mode, status=-15) == (143, [])
    assert run_main(monkeypatch, "dpkg-reconfigure --frob", "/bin/false", mode=mode) == (1, [])
    assert not capsys.readouterr().err
