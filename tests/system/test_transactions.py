"""Transactions of the service: who may make them, and that they end as they would without it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from apt_ostree.model.authorization import ACTIONS
from apt_ostree.model.requests import kind_of
from tests.system.livehost import NOBODY, Host, program, same
from tests.system.sweep import TORTURE
from tests.unit.request_cases import smallest

UNIT = "apt-ostreed.service"
RULES = "/etc/polkit-1/rules.d/10-test.rules"
RULE = """polkit.addRule(function(action, subject) {
  if (action.id.indexOf("org.debian.aptostree1.") == 0 && subject.user == "nobody" && %s)
    return polkit.Result.YES;
});
"""
_EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
EXAMPLE, OPERATORS = _EXAMPLES / "install-live.py", _EXAMPLES / "operators.rules"
#: Until a transaction runs; and what takes some time.
_UNITS = "systemctl list-units --no-legend 'apt-ostree-transaction-*'"
RUNNING = f"for i in $(seq 200); do {_UNITS} | grep -q running && break; sleep 0.1; done"
SLOW = ("sh", "-c", "sleep 5; echo made >/etc/made")
CALL = ("busctl", "--json=short", "call", "org.debian.aptostree1")
_TRANSACTIONS = ("/org/debian/aptostree1/transactions", "org.debian.aptostree1.Transactions")
START = (*CALL, *_TRANSACTIONS, "Start", "ssaha{sv}")


@contextlib.contextmanager
def allowed(host: Host, condition: str = "true") -> Iterator[None]:
    """Have polkit allow nobody all that fulfils a condition."""
    host.run("tee", RULES, input=RULE % condition)
    host.sh(f"chmod 644 {RULES}; systemctl restart polkit")
    try:
        yield
    finally:
        host.sh(f"rm {RULES}; systemctl restart polkit")


def ao(host: Host, *words: str, code: int = 0, input: str | None = None) -> str:
    """Run apt-ostree as nobody; return what it printed."""
    done = host.run(*NOBODY, "apt-ostree", *words, check=False, input=input)
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def meanwhile(host: Host, script: str) -> None:
    """Run a script beside what follows."""
    host.run("systemd-run", "--quiet", "--collect", "sh", "-c", script)


def wait_until(host: Host, condition: str) -> None:
    script = f"for i in $(seq 200); do {condition} && exit; sleep 0.1; done; exit 1"
    assert host.succeeds(script), condition


def commands(host: Host) -> list[str]:
    """Return the commands that were run in the next deployment."""
    return [" ".join(words) for words in host.json("status")["deployments"][0]["commands"]]


def has_ended(host: Host) -> str:
    """Return what tells that no transaction runs."""
    return f"! {_UNITS} | grep -q ."


def test_a_user_whom_polkit_allows(own: Host):
    with allowed(own):
        assert "generation 1" in ao(own, "install", "-A", "-y", "fx-hello")
        assert own.sh("fx-hello") == "hello 1.0\n"
        ao(own, "usroverlay", "--create", "--name=one", "--add=/usr/share/fx", "--from=/etc/issue")
        assert own.exists("/usr/share/fx")
        assert "0" in ao(own, "status")
        result = json.loads(ao(own, "uninstall", "-A", "-y", "fx-hello", "--json"))
        assert result["changed"] and not own.exists("/usr/bin/fx-hello")
        assert ao(own, "uninstall", "fx-hello", code=2) == own.ao("uninstall", "fx-hello", code=2).stderr
    rows = [row for row in own.json("history") if row["outcome"] != "refused"]
    assert {row["caller"] for row in rows} == {"nobody"} and rows[0]["verb"] == "install -A"
    wait_until(own, has_ended(own))
    own.check_clean()


def test_files_pass_with_the_rights_of_the_user(own: Host):
    own.sh(
        "mkdir /run/mine; cd /run/mine; cp /var/lib/testbed/repo/pool/fx-conf_1.0_all.deb .;"
        "mkdir tree; echo x >tree/file; chown -R nobody: .; chmod 700 . tree; chmod 600 tree/file *.deb"
    )
    with allowed(own):
        ao(own, "install", "-A", "-y", "/run/mine/fx-conf_1.0_all.deb")
        assert own.exists("/etc/fx-conf/main.conf")
        add = ("usroverlay", "--create", "--name=one", "--add=/usr/share/fx")
        ao(own, *add, "--from=/run/mine/tree/file")
        assert own.sh("cat /usr/share/fx") == "x\n"
        ao(own, "usroverlay", "--backup=/run/mine/backup.tar")
        assert own.sh("stat -c %U /run/mine/backup.tar") == "nobody\n"
        for path, why in {"/etc/shadow": "not readable", "/etc": "is no regular file"}.items():
            assert why in ao(
                own, "usroverlay", "--name=one", "--add=/usr/share/fx2", f"--from={path}", code=2
            )
    own.ao("usroverlay", "--remove", "--name=one")


def test_a_user_edits_overlays_of_his_own(own: Host):
    own.ao("usroverlay", "--create", "--name=systems", "--add=/usr/share/fx1", "--from=/etc/issue")
    mine = ("--create", "--scope=user", "--user=nobody")
    file = ("--add=/usr/share/fx2", "--from=/etc/issue")
    with allowed(own, 'action.id == "org.debian.aptostree1.overlays-own"'):
        ao(own, "usroverlay", *mine, "--name=mine", *file)
        assert own.exists("/usr/share/fx2")
        ao(own, "usroverlay", "--disable=mine")
        for words in (
            ("--create", "--name=other", *file),
            ("--create", "--scope=user", "--user=root", "--name=other", *file),
            ("--disable=systems",),
            ("--name=mine", "--scope=system"),
            (*mine, "--name=other", "--allow=setuid", *file),
        ):
            assert "org.debian.aptostree1.overlays" in ao(own, "usroverlay", *words, code=4), words
        unit = ("--add=/usr/lib/systemd/system/fx.service", "--from=/etc/issue")
        ao(own, "usroverlay", "--enable=mine")
        assert "user-root-code" in ao(own, "usroverlay", "--name=mine", *unit, code=3)
        ao(own, "usroverlay", "--remove", "--name=mine")
    assert [row["name"] for row in own.json("usroverlay", "--list")] == ["systems"]


def test_who_is_not_allowed_changes_nothing(own: Host):
    before = own.look()
    for verb in ACTIONS:
        # The file that it may restore from is passed as a descriptor.
        request = {"commit": "x"} if verb == "overlay-restore" else smallest(kind_of(verb))
        text = json.dumps(request)
        done = own.run(*NOBODY, *START, verb, text, "0", "0", check=False)
        assert done.returncode and "polkit refused org.debian.aptostree1" in done.stderr, verb
    assert "polkit refused" in ao(own, "install", "-A", "-y", "fx-hello", code=4)
    with allowed(own, 'action.id != "org.debian.aptostree1.apply-live"'):
        assert "org.debian.aptostree1.apply-live" in ao(own, "install", "-A", "-y", "fx-hello", code=4)
    own.sh("systemctl mask --runtime --now polkit")
    assert "polkit" in ao(own, "install", "-A", "-y", "fx-hello", code=4)
    own.sh("systemctl unmask --runtime polkit")
    same(before.everything(), own.look().everything())
    assert {(row["outcome"], row["who"]["user"]) for row in own.json("history")} == {("denied", "nobody")}
    own.ao("status")


def test_senseless_calls_are_errors_and_nothing_more(own: Host):
    before = own.look()
    own.run(*NOBODY, "apt-ostree", "history")
    pid = own.unit_property(UNIT, "MainPID")
    own.run(*NOBODY, *program("fuzz_service.py", "200", "1"))
    descriptors = own.sh(f"ls /proc/{pid}/fd").split()
    count = "10000" if TORTURE else "400"
    done = own.run(*NOBODY, *program("fuzz_service.py", count, "2"), timeout=1200)
    assert len(own.sh(f"ls /proc/{pid}/fd").split()) <= len(descriptors) + 1
    names = json.loads(done.stdout)
    ours = {f"org.debian.aptostree1.Error.{name}" for name in ("Usage", "NotAuthorized")}
    bus = {f"org.freedesktop.DBus.Error.{name}" for name in ("InvalidArgs", "UnknownMethod")}
    assert ours <= set(names) <= {*ours, *bus, "none"}, names
    assert own.unit_property(UNIT, "MainPID") == pid
    assert "Traceback" not in own.sh(f"journalctl --unit={UNIT} --output=cat")
    same(before.everything(), own.look().everything())


@pytest.mark.extended
def test_operators_go_back_and_install_nothing(own: Host):
    own.ao("install", "-A", "-y", "fx-hello", "fx-service")
    own.sh("groupadd operators; useradd -G operators op")
    own.run("tee", RULES, input=OPERATORS.read_text())
    own.sh("systemctl restart polkit")
    operator = ("runuser", "-u", "op", "--")
    for words in (["install", "fx-conf"], ["apply-live", "--packages=fx-conf"]):
        assert own.run(*operator, "apt-ostree", *words, check=False).returncode == 4
    own.run(*operator, "apt-ostree", "apply-live", "--reset")
    assert not own.exists("/usr/bin/fx-hello")
    assert own.json("history")[-1]["caller"] == "op"


def test_an_administrator_types_a_password(own: Host):
    own.sh("groupadd -f sudo; useradd -G sudo op; echo op:secret | chpasswd")

    def typed(password: str, *words: str) -> tuple[int, str]:
        done = own.run_program("type_password.py", "op", password, "apt-ostree", *words)
        answer = json.loads(done.stdout)
        return answer["code"], answer["output"]

    code, shown = typed("wrong", "refresh-md")
    assert (code, "you are not authorized" in shown) == (4, True), shown
    code, shown = typed("^C", "refresh-md")
    assert (code, "cancelled before anything was done" in shown) == (130, True), shown
    code, shown = typed("secret", "refresh-md")
    assert (code, "Authentication is required to download the package lists" in shown) == (0, True), shown


def test_a_client_of_the_description_follows_a_transaction(own: Host):
    with allowed(own):
        done = own.run(*NOBODY, "python3", "-c", EXAMPLE.read_text(), "fx-hello")
        assert done.stdout.splitlines()[-1].strip() == "end"
        assert "task-begin Preparing the layer" in done.stdout.splitlines()
        assert own.sh("fx-hello") == "hello 1.0\n"
        again = own.run(*NOBODY, "python3", "-c", EXAMPLE.read_text(), "no-such-package", check=False)
        assert again.returncode == 1 and "no-such-package" in again.stderr


def test_the_service_can_be_killed_while_a_transaction_runs(own: Host):
    with allowed(own):
        kill = f"for i in 1 2 3; do systemctl kill -s KILL {UNIT}; sleep 1; done"
        meanwhile(own, f"{RUNNING}; {kill}")
        assert "Staging" in ao(own, "run", *SLOW)
    assert commands(own) == [" ".join(SLOW)]
    log = own.sh(f"journalctl --unit={UNIT} --output=cat --grep='status=9/KILL'")
    assert len(log.splitlines()) == 3
    own.sh("systemctl reset-failed")


def test_a_worker_that_is_killed_is_told(own: Host):
    with allowed(own):
        kill = "systemctl kill -s KILL 'apt-ostree-transaction-*.service'"
        meanwhile(own, f"{RUNNING}; sleep 1; {kill}")
        assert "the worker ended without an answer" in ao(own, "run", "sleep", "30", code=1)
        ao(own, "run", "sh", "-c", "echo made >/etc/made")
    assert own.failed_units() == []


def test_a_cancel_undoes(own: Host):
    before = own.look()
    with allowed(own):
        done = own.run(
            *NOBODY, "timeout", "--signal=INT", "3", "apt-ostree", "run", "sleep", "30", check=False
        )
        assert done.returncode == 124, done
        wait_until(own, has_ended(own))
    same(before.everything(), own.look().everything())
    assert [row["outcome"] for row in own.json("history")] == ["cancelled"]


def test_the_command_that_cancels(own: Host):
    assert "No active transaction." in own.ao("cancel").stdout
    before = own.look()
    meanwhile(own, "apt-ostree run -- sleep 60; echo $? >/run/code")
    wait_until(own, f"{_UNITS} | grep -q running && grep -q Run /run/apt-ostree/transactions/*/events")
    ao(own, "cancel", code=4)
    assert own.json("status")["transaction"][0] == "run sleep 60"
    with allowed(own, 'action.id == "org.debian.aptostree1.cancel"'):
        assert ao(own, "cancel") == "Cancelled: run sleep 60\n"
    wait_until(own, "test -e /run/code")
    assert own.sh("cat /run/code") == "130\n"
    same(before.everything(), own.look().everything())


@pytest.mark.extended
def test_a_client_that_is_gone_ends_nothing(own: Host):
    with allowed(own):
        meanwhile(own, f"{RUNNING}; pkill -KILL -u nobody")
        own.run(*NOBODY, "apt-ostree", "run", *SLOW, check=False)
        wait_until(own, has_ended(own))
    assert commands(own) == [" ".join(SLOW)]


def test_transactions_queue_and_join(own: Host):
    def start(text: str, wait: str = "true") -> tuple[int, str]:
        done = own.run(*NOBODY, *START, "run", text, "0", "1", "wait", "b", wait, check=False)
        return done.returncode, done.stdout if not done.returncode else done.stderr

    slow = json.dumps({"program": "sleep", "arguments": ["4"]})
    with allowed(own):
        first, same_again = start(slow), start(slow)
        assert first == same_again and first[0] == 0
        code, why = start(json.dumps({"program": "true"}), "false")
        assert code and "'run sleep 4' of nobody is changing the system" in why
        second = json.loads(start(json.dumps({"program": "true"}))[1])["data"][0]
        assert second not in first[1]
        told = own.run(*NOBODY, *CALL, second, "org.debian.aptostree1.Transaction", "Events", "t", "0").stdout
        assert "Waiting for 'run sleep 4' of nobody to end" in told
        units = own.sh(_UNITS).splitlines()
        assert len(units) == 1
        wait_until(own, has_ended(own))


@pytest.mark.variants
@pytest.mark.parametrize("script", ["true", f"systemctl kill -s KILL {UNIT}"])
def test_a_question_is_answered_through_the_service(own: Host, script: str):
    with allowed(own):
        done = own.run_program(
            "leave_prompt_open.py", script, *NOBODY, "apt-ostree", "install", "-A", "fx-hello"
        )
        answer = json.loads(done.stdout)
        assert "Proceed? [y/N]" in answer["output"] and answer["code"] == 0
    assert own.exists("/usr/bin/fx-hello")


LIMITS = "[Limits]\nMemoryMax=1G\nTasksMax=77\nCPUWeight=20\nIOWeight=30\nCPUQuota=150%\n"
NO_BUS = ("env", "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nonexistent")


def test_limits_of_a_change(own: Host):
    before = own.look()
    own.run("tee", "/etc/apt-ostree/apt-ostree.conf", input=LIMITS)
    meanwhile(own, "apt-ostree run -- sleep 5")
    wait_until(own, f"{_UNITS} | grep -q running")
    names = "MemoryMax TasksMax CPUWeight IOWeight CPUQuotaPerSecUSec"
    show = f"systemctl show 'apt-ostree-transaction-*' -P {names.replace(' ', ' -P ')}"
    assert sorted(own.sh(show).split()) == ["1.500000s", "1000000000", "20", "30", "77"]
    assert own.json("status")["transaction"][:2] == ["run sleep 5", "root"]
    wait_until(own, has_ended(own))
    own.sh("rm /etc/apt-ostree/apt-ostree.conf")
    own.ao("cleanup", "-p")
    same(before.system(), own.look().system())


def test_root_without_the_service(own: Host):
    write = ("run", "-A", "-y", "--", "sh", "-c", "echo $http_proxy >/etc/proxy")
    own.run("env", "http_proxy=http://one.example", "apt-ostree", *write)
    assert own.sh("cat /etc/proxy") == "http://one.example\n"
    assert own.is_active(UNIT)
    own.run(*NO_BUS, "apt-ostree", "install", "-A", "-y", "fx-hello")
    own.sh(f"systemctl mask --runtime --now {UNIT}")
    own.ao("uninstall", "-A", "-y", "fx-hello")
    assert own.run(*NOBODY, "apt-ostree", "refresh-md", check=False).returncode == 4
    assert not own.is_active(UNIT)
    own.sh(f"systemctl unmask --runtime {UNIT}")


@pytest.mark.extended
def test_the_service_is_killed_at_random(own: Host):
    """Each transaction ends right all the same, and its client sees it whole."""
    count = 50 if TORTURE else 4
    pause = "$(shuf -i 0-3 -n 1).$(shuf -i 1-9 -n 1)"
    kill = f"while sleep {pause}; do systemctl kill -s KILL {UNIT} 2>/dev/null; done"
    with allowed(own):
        own.run("systemd-run", "--unit=killer", "sh", "-c", kill)
        for number in range(count):
            words = ("uninstall" if number % 2 else "install", "-A", "-y", "fx-hello")
            assert f"generation {number + 1}" in ao(own, *words)
            assert own.exists("/usr/bin/fx-hello") == (number % 2 == 0)
        own.run("systemctl", "stop", "killer")
    kills = own.sh(f"journalctl --unit={UNIT} --output=cat --grep='status=9/KILL'").splitlines()
    assert len(kills) >= count / 2
    own.sh("systemctl reset-failed")
    rows = own.json("history")
    assert [row["verb"] for row in rows] == ["install -A", "uninstall -A"] * (count // 2)
    assert {row["outcome"] for row in rows} <= {"live", "forgotten"}
    own.check_clean()


@pytest.mark.extended
def test_many_transactions_leave_nothing(own: Host):
    """Of the service's memory, descriptors, units and files."""
    count = 1000 if TORTURE else 20

    def footprint() -> list[int]:
        pid = own.unit_property(UNIT, "MainPID")
        numbers = own.sh(
            f"awk '/VmRSS/ {{print $2}}' /proc/{pid}/status; ls /proc/{pid}/fd | wc -l;"
            "wc -l </proc/1/mountinfo; systemctl list-units --all --no-legend | wc -l; ostree refs | wc -l"
        )
        return [int(number) for number in numbers.split()]

    def make(number: int) -> None:
        for _ in range(number):
            own.ao("cleanup", "-b")

    make(5)
    memory, *before = footprint()
    make(count)
    own.sh("sleep 32")  # as long as those that have ended stay
    assert own.sh("ls /run/apt-ostree/transactions") == ""
    memory_now, *after = footprint()
    assert after == before
    assert memory_now < memory + 3000, (memory, memory_now)  # kB
