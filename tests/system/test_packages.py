"""install, uninstall and upgrade on a booted machine: what they make, refuse, and leave behind."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence

import pytest

from tests.system import livehost
from tests.system.livehost import NOBODY, WRITABLE_SYSROOT, Host, program

POOL = "/var/lib/testbed/repo/pool"
STORE = "/var/lib/apt-ostree/debs"
CONF = "/etc/apt-ostree/apt-ostree.conf"
EXTRA = "/etc/apt/sources.list.d/extra.sources"


@pytest.fixture
def host(host: Host) -> Iterator[Host]:
    """The module's machine, in which no test may leave anything of a build."""
    yield host
    host.sh(f"rm -rf {EXTRA} /etc/apt-ostree/apt-ostree.conf* /var/tmp/*")
    assert left_over(host) == []


@pytest.fixture
def own(own: Host) -> Iterator[Host]:
    """A machine of the test's own, in which it may not leave anything of a build, either."""
    yield own
    assert left_over(own) == []


def left_over(host: Host) -> list[str]:
    return host.run_program("left_over.sh").stdout.splitlines()


@contextlib.contextmanager
def untouched(host: Host, *, linked: bool = False) -> Iterator[None]:
    """What happens inside leaves the system as it was, to the byte.

    linked: files of /usr may have been linked into a deployment that went again, which changes their ctime.
    """
    before = host.look().everything()
    yield
    after = host.look().everything()
    if linked:
        before["usr"] = after["usr"]
    livehost.same(before, after)
    assert left_over(host) == []


def next_commit(host: Host) -> str:
    return str(host.deployments()[0]["checksum"])


def layered(host: Host) -> tuple[list[str], list[str]]:
    """Return what is requested, by name and as files, of the next deployment."""
    first = host.deployments()[0]
    return (first["requested-packages"], first["requested-local-packages"])


def versions(host: Host, commit: str) -> dict[str, str]:
    """Return the fx packages of a commit's dpkg database with their versions."""
    text = host.sh(f"ostree cat {commit} /usr/lib/sysimage/dpkg/status")
    found = (dict(line.split(": ", 1) for line in p.splitlines() if ": " in line) for p in text.split("\n\n"))
    return {row["Package"]: row["Version"] for row in found if row.get("Package", "").startswith("fx-")}


# --- bad input


def test_not_an_ostree_host():
    for words in (["install", "fx-hello"], ["uninstall", "--all"], ["upgrade"]):
        livehost.check_refused_here(*words)


#: Exit code, arguments, and what the message, its details and the hint must name.
BAD = (
    (2, "install no-such-package", ["no-such-package", "not known", "refresh-md"]),
    (2, "install fx-helo", ["fx-helo", "not known", "did you mean 'fx-hello'?"]),
    (2, "install nosuch1 nosuch2 fx-conf", ["2 packages are not known: nosuch1, nosuch2"]),
    (2, "install nosuch1 fx-conf=7", ["2 packages", "fx-conf has no version '7'; known: 1.0", "nosuch1 is"]),
    (2, "install fx-conf=7", ["fx-conf", "'7'", "1.0"]),
    (2, "install fx-conf fx-conf=1.0", ["fx-conf=1.0", "same package"]),
    (2, "install less", ["less", "part of the base", "--idempotent"]),
    (2, "install fx-hello", ["already requested"]),
    (2, "install /nowhere/x.deb", ["/nowhere/x.deb", "No such file"]),
    (2, "install /etc/profile.d", ["/etc/profile.d", "not known"]),
    (2, "install --uninstall fx-conf fx-user", ["fx-conf", "not requested", "fx-hello"]),
    (2, "install less fx-hello", ["less, fx-hello", "'less' is already part", "'fx-hello' is already req"]),
    (2, "uninstall fx-conf", ["fx-conf", "not requested", "fx-hello"]),
    (2, "uninstall fx-conf fx-hello fx-var", ["2 requests", "fx-conf, fx-var", "'fx-var' is not requested"]),
    (3, "install fx-conflict-a fx-conflict-b", ["fx-conflict-a 1.0 conflicts with fx-conflict-b"]),
    (3, "install fx-breaks-base", ["less", "fx-breaks-base 1.0 conflicts with it"]),
    (3, "install fx-missing", ["fx-missing", "fx-does-not-exist"]),
    (1, "install fx-fail", ["fx-fail", "this postinst fails on purpose", "post-installation script"]),
    (1, "install fx-preinst", ["fx-preinst", "this preinst fails on purpose", "pre-installation script"]),
    (1, "install fx-conf fx-fail", ["this postinst fails on purpose"]),
)


def test_bad_requests(host: Host):
    host.ao("install", "fx-hello")
    with untouched(host):
        for code, argv, words in BAD:
            text = host.failure(*argv.split(), code=code)
            assert [word for word in words if word not in text] == [], f"{argv}: {text}"
            assert left_over(host) == [], argv


def test_a_refused_removal_tells_who_wants_it(host: Host):
    host.ao("install", "fx-divert", "fx-conf", "fx-conflict-a", "fx-exact")
    host.suites("stable", "updates")
    exact = "fx-exact 1.0: it depends on fx-hello (= 1.0), but fx-hello would be"
    refused = {
        "fx-no-hello": [
            "fx-divert 1.0: it depends on fx-hello, but fx-hello would be removed",
            f"{exact} removed",
            "fx-hello 1.0: fx-no-hello 1.0 conflicts with it and replaces it",
        ],
        "fx-breaks-conf": ["fx-conf 1.0: fx-breaks-conf 1.0 breaks it"],
        "fx-conflict-b": ["fx-conflict-a 1.0: fx-conflict-b 1.0 conflicts with it"],
        "fx-hello=2.0": [f"{exact} 2.0"],
    }
    with untouched(host):
        for request, reasons in refused.items():
            event = host.json("install", request, code=3)
            assert sorted(event["details"]) == reasons
            names = event["message"].rpartition(": ")[2].split(", ")
            assert names == [reason.split()[0] for reason in reasons]


def test_an_error_speaks_of_packages_and_scripts(host: Host):
    host.sh(f"cp {POOL}/fx-preinst_1.0_all.deb {POOL}/fx-overwrite_1.0_all.deb /var/tmp")
    with untouched(host):
        for argv, told in (
            (
                ["install", "/var/tmp/fx-preinst_1.0_all.deb"],
                "fx-preinst 1.0: new fx-preinst package pre-inst",
            ),
            (
                ["install", "fx-hello", "/var/tmp/fx-overwrite_1.0_all.deb"],
                "fx-overwrite 1.0: trying to overwrite",
            ),
        ):
            event = host.json(*argv, code=1)
            assert told in event["message"]
            text = "\n".join([event["message"], *event["details"], event["hint"]])
            assert not re.search("apt-ostree/work|bwrap|[0-9a-f]{32}", text), text
            assert [line for line in event["internals"] if re.match("command: .*bwrap ", line)]
        short, long = (host.ao("install", "fx-preinst", *more, code=1).stderr for more in ([], ["-v"]))
    assert "(more with -v)" in short and "bwrap" not in short
    assert "(more with -v)" not in long and re.search("command: .*bwrap", long)


LOGS = "/var/log/apt-ostree"


@pytest.mark.extended
def test_the_whole_output_is_kept(host: Host):
    host.sh(f"rm -rf {LOGS}")
    event = host.json("install", "fx-set-40", "fx-fail", code=1)
    place = event["hint"].rpartition("the whole output is in ")[2]
    text = host.sh(f"cat {place}")
    assert place.startswith(f"{LOGS}/") and host.sh(f"ls {LOGS}/*").split() == [place]
    assert "Unpacking fx-many-001 (1.0)" in text and "Unpacking fx-many-001" not in "".join(event["details"])
    assert "fx-fail: this postinst fails on purpose" in text and "systemd-tmpfiles --create" in text
    assert stat(host, LOGS, place) == ["directory 750 root:adm", "regular file 640 root:adm"]
    fields = "-o cat --output-fields=MESSAGE -t apt-ostree"
    livehost.wait_for(
        host, f"journalctl {fields} APT_OSTREE_LOG={place} | grep -qx 'Unpacking fx-many-001 (1.0) ...'"
    )


@pytest.mark.extended
def test_output_is_kept_of_what_succeeds_and_the_oldest_goes(host: Host):
    host.sh(
        f"rm -rf {LOGS}; mkdir {LOGS}; for i in $(seq 30); do touch -d 2020-01-01 {LOGS}/old-$i.log; done"
    )
    host.ao("install", "fx-user")
    names = host.sh(f"ls {LOGS}").split()
    assert len(names) == 20
    (new,) = [name for name in names if not name.startswith("old-")]
    assert "Setting up fx-user (1.0)" in host.sh(f"cat {LOGS}/{new}")
    assert "install: " in host.sh(f"cat {LOGS}/{new}")


def test_a_log_that_cannot_be_written_fails_nothing(host: Host):
    host.sh(
        f"rm -rf {LOGS}; mkdir {LOGS}; mount -t tmpfs -o size=4k none {LOGS}; fallocate -l 4k {LOGS}/fill"
    )
    try:
        events = host.events("install", "fx-hello")
        assert [e["text"] for e in events if e.get("level") == "warning" and LOGS in e.get("text", "")]
        assert layered(host)[0] == ["fx-hello"]
        hint = host.json("install", "fx-fail", code=1)["hint"]
        assert "this postinst fails on purpose" in host.sh(f"cat {hint.rpartition(' ')[2]}")
        assert host.sh(f"ls {LOGS}").split() == ["fill"]
    finally:
        host.sh(f"umount {LOGS}; rm -rf /tmp/apt-ostree-*")


def test_bad_command_lines(host: Host):
    with untouched(host):
        for argv in (
            ["install"], ["install", "--no-such-option", "fx-hello"], ["install", "-A", "-r", "fx-hello"],
            ["uninstall"], ["uninstall", "--all", "fx-hello"], ["upgrade", "--base-only", "--packages-only"],
            ["upgrade", "fx-hello"], ["instal", "fx-hello"],
        ):  # fmt: skip
            done = host.ao(*argv, code=2)
            assert done.stderr.startswith("error: ") and "\nhint: " in done.stderr and not done.stdout


def test_not_root(host: Host):
    with untouched(host):
        for argv in (
            ["install", "fx-hello"],
            ["install", "-n", "fx-hello"],
            ["uninstall", "--all"],
            ["upgrade"],
        ):
            done = host.run(*NOBODY, "apt-ostree", *argv, check=False)
            assert done.returncode == 4
            assert "sudo" in done.stderr


def test_bad_settings(host: Host):
    for text in ("[Layering]\nScriptTimeout=soon\n", "[Layering]\nTimeout=3\n", "ScriptTimeout=3\n"):
        host.sh(f"mkdir -p /etc/apt-ostree; printf '{text}' >{CONF}")
        with untouched(host):
            for argv in (["install", "fx-hello"], ["upgrade"]):
                assert CONF in host.failure(*argv, code=2)


def test_virtual_package(host: Host):
    stanza = "Version: 1\nArchitecture: all\nProvides: fx-virtual\nFilename: x.deb\nSize: 1\nSHA256: {}\n\n"
    paragraphs = "".join(f"Package: fx-virtual-{n}\n{stanza.format(n * 64)}" for n in "12")
    host.sh(
        f"mkdir /var/tmp/v; printf '%s' '{paragraphs}' >/var/tmp/v/Packages;"
        f"printf 'Types: deb\\nURIs: file:/var/tmp/v\\nSuites: ./\\nTrusted: yes\\n' >{EXTRA}"
    )
    with untouched(host):
        text = host.failure("install", "fx-virtual", code=2)
        several = host.json("install", "fx-virtual", "nosuch", code=2)
    assert "virtual" in text and "fx-virtual-1, fx-virtual-2" in text
    assert several["message"] == "2 packages cannot be found: fx-virtual, nosuch"
    assert (
        "fx-virtual is virtual; choose one that provides it: fx-virtual-1, fx-virtual-2" in several["details"]
    )


@pytest.mark.parametrize("suite", ["unsigned", "badsig", "expired"])
def test_archives_that_are_not_to_be_trusted(host: Host, suite: str):
    host.suites("stable", suite)
    with untouched(host):
        text = host.ao("install", "fx-hello=9.0", code=2).stderr
    assert f"/var/lib/testbed/repo {suite}" in text and "no version '9.0'" in text


def test_an_unsigned_list_that_is_here_already(host: Host):
    host.suites("stable", "unsigned")
    host.sh("apt-get -q update --allow-insecure-repositories; touch /var/cache/apt-ostree/refreshed")
    with untouched(host):
        assert "fx-hello 9.0" in host.failure("install", "-C", "fx-hello=9.0", code=3)
        assert "fx-hello 9.0" in host.failure("install", "-C", "-A", "-y", "fx-hello", code=3)


def test_archive_that_cannot_be_reached(host: Host):
    host.sh(
        f"printf 'Types: deb\\nURIs: http://127.0.0.1:9/debian\\nSuites: trixie\\nComponents: main\\n'"
        f" >{EXTRA}"
    )
    dead = "http://127.0.0.1:9/debian trixie"
    host.sh("mkdir -p /etc/apt-ostree; printf '[Archives]\\nStrict=yes\\n' >/etc/apt-ostree/apt-ostree.conf")
    with untouched(host):
        for argv in (["install", "fx-hello"], ["upgrade"]):
            text = host.failure(*argv, code=1)
            assert dead in text.splitlines()[0] and "network" in text
    host.sh("rm /etc/apt-ostree/apt-ostree.conf")
    assert dead in host.ao("upgrade").stderr  # told, and the other archives are used
    assert host.json("install", "fx-hello")["changed"]


def test_a_script_that_hangs(host: Host):
    host.sh(f"mkdir -p /etc/apt-ostree; printf '[Layering]\\nScriptTimeout=3\\n' >{CONF}")
    with untouched(host):
        text = host.failure("install", "fx-hang", code=1)
    assert "3 seconds" in text and "this postinst never ends" in text and "ScriptTimeout" in text


@pytest.mark.extended
def test_local_files_that_are_no_packages(host: Host):
    host.sh(
        "cd /var/tmp; mkdir dir.deb; echo nonsense >text.deb; : >empty.deb;"
        f"head -c 700 {POOL}/fx-conf_1.0_all.deb >cut.deb; cp {POOL}/fx-missing_1.0_all.deb missing.deb"
    )
    with untouched(host):
        for name in ("dir", "text", "empty"):
            assert f"/var/tmp/{name}.deb" in host.failure("install", f"/var/tmp/{name}.deb", code=2)
        host.failure("install", f"{POOL}/fx-conf_1.0_all.deb", "/var/tmp/text.deb", code=2)
        assert "fx-does-not-exist" in host.failure("install", "/var/tmp/missing.deb", code=3)
        host.ao("install", "-n", f"{POOL}/fx-conf_1.0_all.deb")


# --- cancels, kills and full disks

#: Succeeds when the script of fx-hang runs.
HANGS = "pgrep -f [f]x-hang.postinst >/dev/null"


def at(host: Host, point: str, action: str, *argv: str) -> tuple[int, str]:
    """Do something ($client, $worker) while a command stands at a failpoint; return its code and output."""
    done = host.run_program("at_failpoint.sh", point, action, "apt-ostree", *argv, check=False)
    assert "not stopped" not in done.stdout, done.stdout
    return done.returncode, done.stdout


def install_and(host: Host, package: str, until: str, action: str) -> tuple[int, str]:
    """Do something to an install ($!) as soon as a shell command succeeds; return its code and output."""
    wait = f"for i in $(seq 600); do {until} && break; sleep 0.05; done"
    command = f"apt-ostree install {package} 2>&1 & {wait}; {action}; wait $!"
    done = host.run("bash", "-c", command, check=False)
    return done.returncode, done.stdout


POINTS = (
    "buildroot.created",
    "download.before",
    "download.after",
    "layering.before-install",
    "layering.after-install",
    "layering.before-commit",
    "repo.before-commit",
    "layering.after-commit",
    "stage.before",
)


def test_cancelled(host: Host):
    host.ao("install", "fx-hello")
    with untouched(host):
        for point in POINTS:
            code, text = at(host, point, "kill -INT $client", "install", "fx-conf")
            assert code == 130 and "cancelled" in text, f"{point}: {text}"
            assert left_over(host) == [], point


@pytest.mark.extended
def test_cancelled_when_it_is_done(host: Host):
    code, _text = at(host, "stage.after", "kill -INT $client", "install", "fx-conf")
    assert code == 0 and layered(host)[0] == ["fx-conf"]


def test_cancelled_while_a_script_runs(host: Host):
    with untouched(host):
        code, text = install_and(host, "fx-hang", HANGS, "kill -INT $!")
        assert code == 130 and "cancelled" in text


@contextlib.contextmanager
def archive_by_http(host: Host, *server: str) -> Iterator[None]:
    """Have a server of the fixture repository on port 8099, as the only archive."""
    host.run("systemd-run", "--quiet", "--unit=archive", *server)
    try:
        livehost.wait_for(host, "curl -s http://127.0.0.1:8099/ >/dev/null")
        host.sh(
            "sed s,file:/var/lib/testbed/repo,http://127.0.0.1:8099,"
            f" /etc/apt/sources.list.d/testbed.sources >{EXTRA}"
        )
        host.suites("none")
        yield
    finally:
        host.run("systemctl", "stop", "archive", check=False)


@pytest.mark.extended
def test_cancelled_while_downloading_and_archives_that_are_not_here(host: Host):
    host.sh("rm -f /run/asked")
    with archive_by_http(host, *livehost.program("slow_archive.py")), untouched(host):
        host.ao("refresh-md", "-f")
        text = host.failure("install", "-C", "fx-conf", code=3)
        assert "fx-conf_1.0_all.deb" in text and "--cache-only" in text
        code, text = install_and(host, "fx-conf", "test -e /run/asked", "kill -INT $!")
        assert code == 130 and "cancelled" in text


def test_worker_killed(host: Host):
    host.ao("install", "fx-hello")
    before = host.look().everything()
    for point in ("layering.before-install", "layering.before-commit", "stage.before"):
        code, text = at(host, point, "kill -KILL $worker; kill() { :; }", "install", "fx-conf")
        assert code == 1 and "worker" in text, f"{point}: {text}"
    after = host.look().everything()
    for look in (before, after):  # either deployment may be the one that was staged
        look["state"] = {path: row for path, row in look["state"].items() if not path.endswith("/etc-due")}
    livehost.same(before, after)
    host.ao("install", "fx-conf")
    assert layered(host)[0] == ["fx-conf", "fx-hello"]


@pytest.mark.extended
def test_worker_killed_while_a_script_runs(host: Host):
    before = host.look().everything()
    install_and(host, "fx-hang", HANGS, livehost.KILL_WORKER)
    livehost.wait_for(host, "! pgrep -f [f]x-hang.postinst")
    livehost.same(before, host.look().everything())
    host.ao("install", "fx-hello")


#: Fills the file system but for so many kilobytes, with what is free for anyone (%a) or for root (%f).
_FILL = "fallocate -l $(($(stat -fc '{free}*%S' /var)-{kb}*1024)) /var/tmp/fill; sync -f /var"


def free_blocks(host: Host) -> int:
    return int(host.sh("sync; stat -fc %f /var"))


def test_full_disk(host: Host):
    host.ao("install", "fx-hello")
    host.ao("install", "-n", "fx-set-40")
    free = free_blocks(host)
    with untouched(host, linked=True):
        for point, kilobytes in (
            ("buildroot.created", 0),
            ("layering.before-install", 0),
            ("layering.before-install", 400),
            ("layering.after-install", 0),
            ("layering.before-commit", 100),
            ("layering.after-commit", 0),
        ):
            fill = _FILL.format(free="%f", kb=kilobytes)
            code, text = at(host, point, fill, "install", "fx-set-40")
            host.sh("rm /var/tmp/fill")
            reason = text.partition("error: ")[2]
            assert code == 1 and ("No space left" in reason or "not enough space" in reason), (
                f"{point}: {text}"
            )
            assert left_over(host) == [], point
    assert free - free_blocks(host) < 2000
    host.ao("install", "fx-conf")


def test_too_little_space_is_known_beforehand(host: Host):
    host.sh(_FILL.format(free="%a", kb=30_000))
    with untouched(host):
        text = host.failure("install", "fx-hello", code=1)
        assert "not enough space" in text and "cleanup" in text


def test_memory_of_the_worker(host: Host):
    assert 20_000 < host.memory_of_worker("install", packages=["fx-set-40"]) < 200_000  # kB


# --- what the verbs make


def test_install_idempotent_inactive_unchanged(host: Host):
    host.ao("install", "fx-set-40")
    assert len(versions(host, next_commit(host))) == 41
    with untouched(host):
        result = host.json("install", "--idempotent", "fx-set-40", "less")
        assert not result["changed"] and not result["staged"]
        host.ao("install", "--idempotent", "--unchanged-exit-77", "fx-set-40", code=77)
        host.ao("upgrade", "--unchanged-exit-77", code=77)
        host.ao("upgrade", "--base-only", "--unchanged-exit-77", code=77)
        host.ao("uninstall", "--idempotent", "--unchanged-exit-77", "fx-nothing", code=77)
        host.ao("upgrade", "--check", code=77)
    # A dependency that is here already, and a package of the base: nothing to install, but to remember.
    assert host.json("install", "--allow-inactive", "fx-many-007", "less")["changed"]
    host.ao("uninstall", "fx-set-40")
    assert layered(host) == (["fx-many-007", "less"], [])
    assert list(versions(host, next_commit(host))) == ["fx-many-007"]
    host.ao("uninstall", "fx-many-007")
    assert layered(host) == (["less"], [])


def test_uninstall_goes_back_to_the_base(host: Host):
    base = next_commit(host)
    host.ao("install", "fx-set-40", "fx-conf=1.0", "fx-user")
    result = host.json("install", "fx-hello", "--uninstall", "fx-set-40")
    assert [p["name"] for p in result["packages"]["added"]] == ["fx-hello"]
    assert len(result["packages"]["removed"]) == 41
    assert layered(host) == (["fx-conf=1.0", "fx-hello", "fx-user"], [])
    host.ao("uninstall", "fx-conf", "--install", "fx-var")
    assert layered(host)[0] == ["fx-hello", "fx-user", "fx-var"]
    result = host.json("uninstall", "--all")
    assert result["commit"] == base == next_commit(host)
    assert layered(host) == ([], [])


@pytest.mark.extended
def test_uninstall_does_not_upgrade_what_stays(host: Host):
    host.ao("install", "fx-hello", "fx-conf", "fx-var")
    host.suites("stable", "updates")
    host.ao("uninstall", "fx-conf")
    assert versions(host, next_commit(host)) == {"fx-hello": "1.0", "fx-var": "1.0"}
    host.ao("install", "fx-set-40", "--uninstall", "fx-var")
    assert versions(host, next_commit(host))["fx-hello"] == "1.0"


@pytest.mark.extended
def test_uninstall_needs_no_package_lists(host: Host):
    host.ao("install", "fx-hello", "fx-conf")
    host.ao("cleanup", "--repomd")
    host.ao("uninstall", "fx-conf")
    assert layered(host)[0] == ["fx-hello"]
    assert not host.sh("ls /var/lib/apt/lists | grep Packages || true")
    host.ao("refresh-md")


@pytest.mark.extended
def test_uninstall_leaves_what_other_packages_recommend(host: Host):
    host.ao("install", "fx-recommends", "fx-hello", "fx-set-40")
    assert "fx-conf" in versions(host, next_commit(host))
    result = host.json("uninstall", "fx-hello", "fx-set-40")
    assert "fx-conf" not in {package["name"] for package in result["packages"]["removed"]}
    host.ao("uninstall", "fx-recommends", "--install", "fx-var")
    assert set(versions(host, next_commit(host))) == {"fx-var"}


@pytest.mark.extended
def test_what_other_verbs_install_comes_with_what_it_recommends_or_without(host: Host):
    host.ao("install", "fx-hello")
    host.ao("uninstall", "fx-hello", "--install=fx-recommends", "--no-recommends")
    assert set(versions(host, next_commit(host))) == {"fx-recommends"}
    host.ao("uninstall", "fx-recommends", "--install=fx-hello")
    host.sh("echo 'APT::Install-Recommends \"false\";' >/etc/apt/apt.conf.d/99fx")
    host.ao("upgrade", "--packages-only", "--install=fx-recommends", "--recommends", "--uninstall=fx-hello")
    assert set(versions(host, next_commit(host))) == {"fx-recommends", "fx-conf"}
    host.sh("rm /etc/apt/apt.conf.d/99fx")
    host.ao("upgrade", "--packages-only", "--no-recommends", code=2)


def test_dry_run_and_download_only(host: Host):
    with untouched(host):
        result = host.json("install", "-n", "fx-hello")
        assert result["changed"] and not result["staged"]
        assert [s["name"] for s in result["transaction"]["install"]] == ["fx-hello"]
        assert "fx-hello" in host.ao("install", "-n", "fx-hello").stdout
    served = ("--bind=127.0.0.1", "--directory=/var/lib/testbed/repo", "8099")
    with archive_by_http(host, "/usr/bin/python3", "-m", "http.server", *served):
        with untouched(host):
            host.ao("install", "--download-only", "fx-hello")
        assert host.exists("/var/cache/apt/archives/fx-hello_1.0_all.deb")
    assert "fx-conf_1.0_all.deb" in host.failure("install", "fx-conf", code=1)
    host.ao("install", "-C", "fx-hello")
    assert layered(host)[0] == ["fx-hello"]


def build_deb(host: Host, name: str, version: str, *, depends: str, content: str) -> str:
    """Make a package with one file in the machine; return its path."""
    path = f"/var/tmp/{name}_{version}.deb"
    host.run_program("build_deb.sh", path, name, version, depends, content)
    return path


def test_local_package(host: Host):
    path = build_deb(host, "fx-local", "1.5", depends="fx-hello, fx-conf", content="local")
    host.ao("install", path)
    assert layered(host) == ([], ["fx-local=1.5"])
    assert list(versions(host, next_commit(host))) == ["fx-conf", "fx-hello", "fx-local"]
    host.sh(f"rm {path}")
    host.ao("install", "fx-var", "--uninstall", "fx-user", "--idempotent")  # all is built again
    assert layered(host) == (["fx-var"], ["fx-local=1.5"])
    newer = build_deb(host, "fx-local", "1.6", depends="fx-hello", content="newer")
    host.ao("install", newer)
    assert layered(host)[1] == ["fx-local=1.6"]
    assert len(host.sh(f"ls {STORE}").split()) == 1
    host.suites("stable", "updates")
    host.ao("upgrade")
    found = versions(host, next_commit(host))
    assert (found["fx-local"], found["fx-hello"]) == ("1.6", "2.0")
    host.ao("uninstall", "fx-local")
    assert layered(host) == (["fx-var"], [])


@pytest.mark.extended
def test_local_package_wins_over_the_archives_of_the_same_version(host: Host):
    path = build_deb(host, "fx-hello", "1.0", depends="fx-conf", content="mine")
    host.ao("install", path)
    assert host.sh(f"ostree cat {next_commit(host)} /usr/share/fx-hello/content") == "mine\n"


def test_upgrade_and_pinned_versions(host: Host):
    host.ao("install", "fx-hello=1.0", "fx-conf", f"{POOL}/fx-var_1.0_all.deb")
    host.suites("stable", "updates")
    with untouched(host):
        result = host.json("upgrade", "--check")
        assert [s["name"] for s in result["transaction"]["upgrade"]] == ["fx-conf"]
        assert newer(result["transaction"]["newer"]) == [("fx-hello=1.0", "2.0"), ("fx-var=1.0", "2.0")]
        assert host.json("upgrade", "-n")["changed"]
    host.ao("upgrade", "--packages-only")
    wanted = {"fx-hello": "1.0", "fx-conf": "2.0", "fx-var": "1.0"}
    assert versions(host, next_commit(host)) == wanted
    host.suites("stable", "security", "updates")
    text = host.ao("upgrade", "--check").stdout
    assert "fx-hello=1.0: 1.1 (Testbed:security/main, security)" in text and "fx-var=1.0: 2.0" in text
    status = host.deployments()
    told = [("fx-hello=1.0", "1.1"), ("fx-var=1.0", "2.0")]
    assert newer(status[0]["newer-versions"]) == told and status[-1]["newer-versions"] == []
    assert [row["security"] for row in status[0]["newer-versions"]] == [True, False]
    as_nobody = host.run(*NOBODY, "apt-ostree", "status").stdout
    assert "NewerVersions: fx-hello=1.0: 1.1 (security), fx-var=1.0: 2.0\n" in as_nobody
    host.suites("stable")
    host.ao("refresh-md", "-f")
    assert host.deployments()[0]["newer-versions"] == []
    host.suites("stable", "updates")
    host.ao("install", "fx-hello")
    assert versions(host, next_commit(host))["fx-hello"] == "2.0"
    assert layered(host)[0] == ["fx-conf", "fx-hello"]
    assert newer(host.deployments()[0]["newer-versions"]) == [("fx-var=1.0", "2.0")]
    base = host.json("uninstall", "--all")["commit"]
    assert base == host.deployments()[-1]["checksum"]


@pytest.mark.extended
def test_a_security_update_replaces_a_requested_version_unless_it_is_on_hold(host: Host):
    host.ao("install", "fx-hello=1.0", f"{POOL}/fx-var_1.0_all.deb")
    host.ao("run", "apt-mark", "hold", "fx-hello")
    host.suites("stable", "security", "updates")
    text = host.ao("upgrade", "--packages-only", "--check", code=77).stdout
    assert (
        "packages that stay at theirs" in text
        and "fx-hello=1.0: 1.1 (Testbed:security/main, security)" in text
    )
    host.ao("run", "apt-mark", "unhold", "fx-hello")
    plan = host.json("upgrade", "--packages-only")["transaction"]
    assert newer(plan["taken"]) == [("fx-hello=1.0", "1.1")]
    assert newer(plan["newer"]) == [("fx-hello=1.1", "2.0"), ("fx-var=1.0", "2.0")]
    assert versions(host, next_commit(host)) == {"fx-hello": "1.1", "fx-var": "1.0"}
    assert layered(host)[0] == ["fx-hello=1.1"]


def newer(rows: Sequence[Mapping[str, str]]) -> list[tuple[str, str]]:
    """Return the requests of which a newer version is told, with that version."""
    return [(row["request"], row["version"]) for row in rows]


# --- /opt


@pytest.mark.extended
def test_what_the_administrator_has_in_opt_stays(host: Host):
    host.sh("mkdir -p /var/opt/fx; echo mine >/var/opt/fx/file")
    with untouched(host):
        assert "/opt/fx" in host.failure("install", "fx-opt", code=3)
    host.sh("mv /var/opt/fx /var/opt/away")
    host.ao("install", "fx-opt")
    host.sh("mv /var/opt/away /var/opt/fx")
    with untouched(host, linked=True):
        for words in ((), ("--force",), ("--target", host.commit_of_pending()), ("--packages=fx-opt",)):
            assert "/opt/fx" in host.failure("apply-live", *words, code=3)
    assert host.sh("ls /var/opt/fx; cat /var/opt/fx/file") == "file\nmine\n"
    host.sh("rm -r /var/opt/fx")
    host.ao("apply-live")
    assert host.sh("/opt/fx/bin/fx") == "fx\n"
    host.sh("rm /var/opt/fx")


# --- a newer base


def follow(host: Host, *options: str) -> None:
    """Make the booted deployment follow a remote with one newer commit than its own."""
    host.run(*WRITABLE_SYSROOT, *program("newer_base.sh", *options))


def test_newer_base(own: Host):
    follow(own, "--no-gpg-verify")
    own.ao("install", "fx-hello", "fx-user", "fx-conf=1.0")
    own.suites("stable", "updates")
    own.ao("upgrade", "--base-only")
    pending = next_commit(own)
    assert own.sh(f"ostree cat {pending} /usr/share/new-base") == "new\n"
    assert versions(own, pending) == {"fx-hello": "1.0", "fx-user": "1.0", "fx-conf": "1.0"}
    assert own.deployments()[0]["version"] == "14"
    own.ao("upgrade")
    assert versions(own, next_commit(own))["fx-hello"] == "2.0"
    assert versions(own, next_commit(own))["fx-conf"] == "1.0"
    own.ao("upgrade", "--unchanged-exit-77", code=77)
    own.reboot()
    assert own.sh("cat /usr/share/new-base; fx-hello; id -un fx-user") == "new\nhello 2.0\nfx-user\n"
    own.ao("uninstall", "--all")
    assert next_commit(own) == own.sh("ostree rev-parse base:debian/13/amd64/minimal").strip()


#: Version 1.0 of these, and of the fx-hello that fx-exact needs.
KEPT = ("fx-exact", "fx-divert", "fx-conf", "fx-var", "fx-opt", "fx-caps", "fx-user", "fx-service", "fx-dirs")


@pytest.mark.extended
def test_what_left_the_archives_is_kept_on_a_newer_base(own: Host):
    follow(own, "--no-gpg-verify")
    own.ao("install", *(f"{name}=1.0" for name in KEPT), f"{POOL}/fx-many-001_1.0_all.deb", "fx-recommends")
    before = versions(own, next_commit(own))
    assert set(before) == {*KEPT, "fx-hello", "fx-many-001", "fx-recommends"}
    own.reboot()
    old = own.sh(CONTENTS)
    own.sh(f"echo mine >>/etc/fx-conf/main.conf; rm -r {STORE} /var/cache/apt/archives/*.deb || true")
    own.suites("updates")  # has version 2.0 of some, with which fx-exact 1.0 does not work
    own.ao("refresh-md", "-f")
    result = own.json("upgrade", "--base-only")
    origins = {step["name"]: step["origin"] for step in result["transaction"]["install"]}
    assert set(origins) == set(before) and set(origins.values()) == {"present tree"}
    assert versions(own, next_commit(own)) == before
    assert sorted(layered(own)[0]) == sorted([*(f"{name}=1.0" for name in KEPT), "fx-recommends"])
    own.reboot()
    assert own.sh("cat /usr/share/new-base") == "new\n"
    assert own.sh(CONTENTS) == old
    assert stat(own, "/fx-beside") == ["directory 711 root:root"]
    assert own.sh("tail -n 1 /etc/fx-conf/main.conf") == "mine\n"
    assert own.is_active("fx-service.service")
    own.check_clean()
    result = own.json("upgrade")
    assert {row["request"] for row in result["transaction"]["newer"]} >= {"fx-conf=1.0", "fx-service=1.0"}
    assert layered(own)[1] == ["fx-many-001=1.0"]
    own.suites("none")
    own.ao("uninstall", "--all")
    assert versions(own, next_commit(own)) == {}


#: Prints everything that the fixture packages have in the tree, except for compiled Python and dpkg's times.
CONTENTS = (
    "cd /usr && find . -path '*fx-*' -printf '%p %y %m %U %G %l\\n' | sort;"
    " find . -path '*fx-*' -type f -print0 | sort -z | xargs -0 sha256sum"
)


@pytest.mark.extended
def test_newer_base_without_layers(own: Host):
    follow(own, "--no-gpg-verify")
    with untouched_but_pulled(own):
        own.ao("upgrade", "--check")
    own.ao("upgrade")
    assert next_commit(own) == own.sh("ostree rev-parse base:debian/13/amd64/minimal").strip()
    origin = own.sh("cat /run/ostree/staged-deployment | tr -d '\\0' | grep -ao 'refspec=[^ ]*' || true")
    assert "baserefspec" not in origin
    own.ao("upgrade", "--check", code=77)


@contextlib.contextmanager
def untouched_but_pulled(host: Host) -> Iterator[None]:
    before = host.look().everything()
    yield
    after = host.look().everything()
    before["refs"] = after["refs"] = [ref for ref in after["refs"] if not ref.startswith("base:")]
    livehost.same(before, after)


def test_unsigned_base_where_signatures_are_wanted(own: Host):
    follow(own)
    own.ao("install", "fx-hello")
    with untouched(own):
        assert "base:debian/13/amd64/minimal" in own.failure("upgrade", code=3)
        assert "base:debian/13/amd64/minimal" in own.failure("upgrade", "--base-only", "-A", "-y", code=3)
    own.ao("upgrade", "--packages-only", "--unchanged-exit-77", code=77)


def test_remote_that_is_not_there(own: Host):
    follow(own, "--no-gpg-verify")
    own.sh("rm -rf /var/tmp/base")
    with untouched(own):
        assert "base:debian/13/amd64/minimal" in own.failure("upgrade", code=1)


# --- what boots


def stat(host: Host, *paths: str) -> Sequence[str]:
    return host.run("stat", "--format=%F %a %U:%G", *paths).stdout.splitlines()


def test_what_boots(own: Host):
    own.sh("useradd --system fx-other")  # takes an id that a build without the host's list would give away
    own.ao(
        "install", "fx-service", "fx-conf", "fx-user", "fx-var", "fx-opt", "fx-caps", "fx-divert", "fx-dirs"
    )
    assert own.run("id", "fx-user", check=False).returncode == 1
    own.reboot()
    own.check_clean()
    ids = own.sh("grep -h fx-user /usr/lib/sysusers.d/apt-ostree.conf")
    assert own.sh("id -u fx-user").strip() in ids and own.sh("id -g fx-user").strip() in ids
    assert own.sh("id -u fx-user") != own.sh("id -u fx-other")
    assert stat(own, "/var/lib/fx-user", "/var/lib/fx-var/empty", "/var/lib/fx-var/data") == [
        "directory 750 fx-user:fx-user", "directory 2770 root:root", "regular file 644 root:root"
    ]  # fmt: skip
    assert own.sh(
        "cat /var/lib/fx-var/data /var/www/fx-var/index.html; /opt/fx/bin/fx; cat /opt/fx/data"
    ) == ("data 1.0\n<p>1.0</p>\nfx\nopt\n")
    assert own.run("getcap", "/usr/bin/fx-caps").stdout.split()[1] == "cap_net_bind_service=ep"
    assert stat(own, "/usr/bin/fx-setuid", "/fx-beside") == [
        "regular file 4755 root:root", "directory 711 root:root"
    ]  # fmt: skip
    assert (
        own.sh("fx-editor; fx-hello; cat /usr/share/fx-hello/greeting.real") == "two\ndiverted\nhello 1.0\n"
    )
    assert own.is_active("fx-service.service")
    top = "/usr/share/fx-dirs"
    before = own.sh(f"cat {top}/file-then-dir {top}/dir-then-file/inner; readlink {top}/link-then-dir")
    assert before == "a file\ninside\nmode\n"

    own.sh(
        "systemctl disable --now fx-service; echo mine >>/etc/fx-conf/main.conf;"
        "echo changed >/var/lib/fx-var/data"
    )
    own.suites("stable", "updates")
    own.ao("upgrade")
    own.reboot()
    assert own.sh("cat /usr/share/fx-service/version") == "2.0\n"
    assert own.run("systemctl", "is-enabled", "fx-service", check=False).stdout == "disabled\n"
    assert not own.is_active("fx-service.service")
    assert own.sh("tail -n 1 /etc/fx-conf/main.conf; cat /etc/fx-conf/new.conf") == "mine\nonly=in-2.0\n"
    assert not own.exists("/etc/fx-conf/old.conf")
    assert own.sh("cat /var/lib/fx-var/data; cat /usr/share/fx-var/version") == "changed\n2.0\n"
    assert own.sh(
        f"cd {top}; cat file-then-dir/inner dir-then-file link-then-file link-then-dir/inner;"
        "readlink file-then-link dir-then-link link-moves"
    ) == "inside\na file\na file\ninside\nstays\nmode\nmode\n"  # fmt: skip
    assert stat(own, f"{top}/mode", f"{top}/file-mode") == [
        "directory 2750 root:root", "regular file 755 root:root"
    ]  # fmt: skip
    assert own.exists("/fx-beside")
    assert not own.exists(f"{top}/gone") and not own.exists(f"{top}/gone-dir")
    assert own.sh("id -u fx-user").strip() in ids
    own.sh("echo 'data 2.0' >/var/lib/fx-var/data; printf '<p>2.0</p>\\n' >/var/www/fx-var/index.html")

    own.ao("uninstall", "--all")
    own.reboot()
    assert (
        own.run(
            "sh", "-c", "ls -d /fx-* /usr/share/fx-* /usr/lib/opt/fx /etc/fx-service.conf", check=False
        ).stdout
        == ""
    )
    assert own.deployments()[0]["checksum"] == own.deployments()[0].get(
        "base-checksum", own.deployments()[0]["checksum"]
    )
