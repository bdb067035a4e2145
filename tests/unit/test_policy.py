"""What the policy decides, and which setting decides it: a table of situations."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from apt_ostree.errors import UsageError
from apt_ostree.model.approval import Approval, Asked, checked_name, judge_approval, name_of
from apt_ostree.model.package_plan import PackagePlan, Step
from apt_ostree.model.policy import Archive, Incoming, Rule, Times, Window
from apt_ostree.model.policy_rules import (
    decide,
    judge_packages,
    judge_scan,
    judge_window,
    refuses_version,
)
from apt_ostree.model.policy_settings import read_policy
from apt_ostree.model.reach import Reach
from apt_ostree.model.settings import parse_settings


def policy_of(*files: str):
    """Return the policy of the text of [Policy] in files a.conf, b.conf, ..."""
    named = [(f"/{name}.conf", f"[Policy]\n{text}") for name, text in zip("abc", files, strict=False)]
    return read_policy(parse_settings(named).policy)


def incoming(*names: str) -> list[Incoming]:
    """Return packages; a name with "<" is a dependency."""
    return [Incoming(name.removeprefix("<"), "1", dependency=name.startswith("<")) for name in names]


def refusals(decision) -> dict[str, str]:
    """Return FILE:KEY of what refuses, by the rule and its subject."""
    return {
        f"{reason.rule} {reason.subject}".rstrip(): f"{reason.setting.file}:{reason.setting.key}"
        for reason in decision.refusals
    }


NEVER = "NeverPackages=telnet* rsh-client"
ONLY = "OnlyPackages=nginx* lib* htop"


@pytest.mark.parametrize(
    ("files", "packages", "expected"),
    [
        # Nothing is set, or nothing comes.
        ([""], ["nginx"], {}),
        ([NEVER], [], {}),
        ([ONLY], [], {}),
        # Never.
        ([NEVER], ["nginx"], {}),
        ([NEVER], ["telnet"], {"never-packages telnet": "/a.conf:NeverPackages"}),
        ([NEVER], ["telnetd"], {"never-packages telnetd": "/a.conf:NeverPackages"}),
        ([NEVER], ["inetutils-telnet"], {}),
        ([NEVER], ["rsh-client"], {"never-packages rsh-client": "/a.conf:NeverPackages"}),
        ([NEVER], ["rsh-client2"], {}),
        ([NEVER], ["nginx", "<telnet"], {"never-packages telnet": "/a.conf:NeverPackages"}),
        (
            [NEVER],
            ["telnet", "<telnetd", "nginx"],
            {
                "never-packages telnet": "/a.conf:NeverPackages",
                "never-packages telnetd": "/a.conf:NeverPackages",
            },
        ),
        (["NeverPackages=*"], ["nginx"], {"never-packages nginx": "/a.conf:NeverPackages"}),
        (["NeverPackages=[!n]*"], ["nginx"], {}),
        (["NeverPackages=libc?"], ["libc6"], {"never-packages libc6": "/a.conf:NeverPackages"}),
        (["NeverPackages=libc?"], ["libc66"], {}),
        (["NeverPackages=g++ libstdc++*"], ["g++"], {"never-packages g++": "/a.conf:NeverPackages"}),
        # The last file that has the key counts, and is named.
        ([NEVER, "NeverPackages=nginx"], ["telnet"], {}),
        ([NEVER, "NeverPackages=nginx"], ["nginx"], {"never-packages nginx": "/b.conf:NeverPackages"}),
        ([NEVER, "NeverPackages="], ["telnet"], {}),
        ([NEVER, "NeverPackages=", NEVER], ["telnet"], {"never-packages telnet": "/c.conf:NeverPackages"}),
        # Only.
        ([ONLY], ["nginx"], {}),
        ([ONLY], ["nginx", "<libpcre3", "<nginx-common"], {}),
        ([ONLY], ["apache2"], {"only-packages apache2": "/a.conf:OnlyPackages"}),
        ([ONLY], ["nginx", "<iproute2"], {"only-packages iproute2": "/a.conf:OnlyPackages"}),
        ([ONLY, "OnlyPackages=apache2"], ["nginx"], {"only-packages nginx": "/b.conf:OnlyPackages"}),
        ([ONLY, "OnlyPackages="], ["apache2"], {}),
        # Both: what is never installed is not, even if it is among the others.
        ([f"{NEVER}\nOnlyPackages=*"], ["telnet"], {"never-packages telnet": "/a.conf:NeverPackages"}),
        (
            [NEVER, ONLY],
            ["telnet"],
            {
                "never-packages telnet": "/a.conf:NeverPackages",
                "only-packages telnet": "/b.conf:OnlyPackages",
            },
        ),
        ([NEVER, ONLY], ["htop"], {}),
    ],
)
def test_packages(files, packages, expected):
    policy = policy_of(*files)
    decision = decide(policy, judge_packages(policy, incoming(*packages)), "")
    assert refusals(decision) == expected
    assert decision.allowed == (not expected)


DEBIAN = Archive("Debian", "Debian", "stable", "trixie", "main", "deb.debian.org")
SECURITY = Archive(
    "Debian", "Debian-Security", "stable-security", "trixie-security", "main", "deb.debian.org"
)
PPA = Archive(site="ppa.example.com")
ORIGINS = {"origins x": "/a.conf:Origins"}


@pytest.mark.parametrize(
    ("files", "archives", "expected"),
    [
        ([""], (PPA,), {}),
        (["Origins=origin=Debian"], (DEBIAN,), {}),
        (["Origins=origin=Debian"], (PPA,), ORIGINS),
        (["Origins=origin=Debian"], (PPA, DEBIAN), {}),  # one of those that offer it is enough
        (["Origins=origin=Debian"], None, {}),  # it is here already
        (["Origins=origin=Debian"], (), ORIGINS),  # a file
        (["Origins=origin=Debian file"], (), {}),
        (["Origins=file"], (DEBIAN,), ORIGINS),
        (["Origins=origin=Debian,suite=stable-security"], (SECURITY,), {}),
        (["Origins=origin=Debian,suite=stable-security"], (DEBIAN,), ORIGINS),
        (["Origins=o=Debian,a=stable*"], (DEBIAN,), {}),
        (["Origins=o=Debian,archive=stable*"], (SECURITY,), {}),
        (["Origins=l=Debian-Security,n=trixie*,c=main"], (SECURITY,), {}),
        (["Origins=codename=bookworm"], (DEBIAN,), ORIGINS),
        (["Origins=component=contrib label=Debian-Security"], (SECURITY,), {}),
        (["Origins=component=contrib"], (SECURITY,), ORIGINS),
        (["Origins=site=*.example.com"], (PPA,), {}),
        (["Origins=site=*.debian.org"], (PPA,), ORIGINS),
        (["Origins='origin=Two Words'"], (Archive("Two Words"),), {}),
        (["Origins=origin=Debian", "Origins=site=ppa.*"], (PPA,), {}),
        (["Origins=origin=Debian", "Origins="], (PPA,), {}),
        (["Origins=origin=debian"], (DEBIAN,), ORIGINS),  # case counts
    ],
)
def test_origins(files, archives, expected):
    policy = policy_of(*files)
    for old in ("", "0.9"):
        reasons = judge_packages(policy, [Incoming("x", "1", old=old, archives=archives)])
        assert refusals(decide(policy, reasons, "")) == expected


@pytest.mark.parametrize(
    ("text", "offer", "expected"),
    [
        ("", Incoming("x", "2", old="1", archives=(DEBIAN,)), None),
        ("SecurityOnly=yes", Incoming("x", "2", old="1", archives=(DEBIAN,)), Rule.SECURITY),
        ("SecurityOnly=yes", Incoming("x", "2", old="1", archives=(SECURITY,), security=True), None),
        ("SecurityOnly=yes", Incoming("x", "2", archives=(DEBIAN,)), None),  # new ones are no upgrades
        ("SecurityOnly=no", Incoming("x", "2", old="1", archives=(DEBIAN,)), None),
        ("Origins=origin=Debian", Incoming("x", "2", old="1", archives=(PPA,)), Rule.ORIGINS),
        ("Origins=origin=Debian", Incoming("x", "2", old="1", archives=(DEBIAN,)), None),
        ("Origins=origin=Debian", Incoming("x", "2", archives=(PPA,)), Rule.ORIGINS),
        (
            "Origins=origin=Debian\nSecurityOnly=yes",
            Incoming("x", "2", old="1", archives=(PPA,), security=True),
            Rule.ORIGINS,
        ),
        (
            "Origins=origin=Debian\nSecurityOnly=yes",
            Incoming("x", "2", old="1", archives=(DEBIAN,)),
            Rule.SECURITY,
        ),
    ],
)
def test_what_is_held_back(text, offer, expected):
    policy = policy_of(text)
    reason = refuses_version(policy, offer)
    assert (reason.rule if reason else None) == expected
    if reason:  # it is told, and does not hold up the rest
        assert reason.allowed and reason.subject == "x"
        assert reason.setting.key in text


APPROVAL = "Approval=install upgrade"
OTHER = f"{APPROVAL}\nApprovalBy=other"
ASKED = Asked("0" * 20, 1000)
ALICE, BOB, OLD, ELSE = (
    Approval("0" * 20, "alice", 1000, 500.0),
    Approval("0" * 20, "bob", 1001, 500.0),
    Approval("0" * 20, "bob", 1001, 300.0),
    Approval("1" * 40, "bob", 1001, 500.0),
)


@pytest.mark.parametrize(
    ("text", "verb", "approvals", "expected"),
    [
        ("", "install", [], None),
        (APPROVAL, "uninstall", [], None),
        (APPROVAL, "install", [], (False, "Approval")),
        (APPROVAL, "install", [ALICE], (True, "Approval")),
        (APPROVAL, "install", [BOB], (True, "Approval")),
        (APPROVAL, "install", [ELSE], (False, "Approval")),
        (APPROVAL, "install", [OLD], (False, "Approval")),
        (f"{APPROVAL}\nApprovalExpires=1h", "install", [OLD], (False, "ApprovalExpires")),
        (f"{APPROVAL}\nApprovalExpires=1h", "install", [OLD, ALICE], (True, "Approval")),
        (OTHER, "install", [], (False, "Approval")),
        (OTHER, "install", [ALICE], (False, "ApprovalBy")),
        (OTHER, "install", [BOB], (True, "Approval")),
        (OTHER, "install", [ALICE, BOB], (True, "Approval")),
        (OTHER, "install", [ALICE, ELSE, OLD], (False, "ApprovalBy")),
        (f"{APPROVAL}\nApprovalBy=anybody", "upgrade", [ALICE], (True, "Approval")),
    ],
)
def test_approvals(text, verb, approvals, expected):
    policy = policy_of(text)
    reasons = judge_approval(policy, Reach(verb=verb), ASKED, approvals, since=400.0)
    assert [(r.allowed, r.setting.key) for r in reasons] == ([expected] if expected else [])
    assert all(r.subject == ASKED.plan and ASKED.plan in r.text for r in reasons)


def test_what_prepares_needs_no_approval():
    assert judge_approval(policy_of(APPROVAL), Reach(applies=False, verb="install"), ASKED, [], since=0) == ()


def test_the_name_of_a_plan_stands_for_all_that_it_does():
    step = Step("nginx", "amd64", new="1.0", size=5, origin="a")
    subject = {"needed": frozenset("abcdefgh"), "commit": "x"}
    one = name_of(Reach(verb="install"), subject, PackagePlan(install=(step,)))
    assert checked_name(one) == one
    same = replace(step, size=6, origin="b", reason="requested")  # what is installed is the same
    again = {"commit": "x", "needed": frozenset("hgfedcba")}
    preview = Reach(True, verb="install", override="x")
    assert name_of(preview, again, PackagePlan(install=(same,))) == one
    others = {
        name_of(Reach(verb="upgrade"), subject, PackagePlan(install=(step,))),
        name_of(Reach(verb="install", live={}), subject, PackagePlan(install=(step,))),
        name_of(Reach(verb="install"), {**subject, "commit": "y"}, PackagePlan(install=(step,))),
        name_of(Reach(verb="install"), subject, PackagePlan(upgrade=(step,))),
        name_of(Reach(verb="install"), subject, PackagePlan(install=(replace(step, new="1.1"),))),
        name_of(Reach(verb="install"), subject, PackagePlan(install=(replace(step, architecture="all"),))),
        name_of(Reach(verb="install"), subject, PackagePlan(install=(step, step))),
        name_of(Reach(verb="install"), subject, None),
    }
    assert len(others | {one}) == 9


@pytest.mark.parametrize("text", ["", "0" * 19, "0" * 21, "0" * 19 + "g", "../../../etc/shadow.", "A" * 20])
def test_what_is_no_name_of_a_plan(text):
    with pytest.raises(UsageError):
        checked_name(text)


def test_a_scanner():
    policy = policy_of("Scanner=clamscan --infected 'a b'\nScanTimeout=60")
    assert policy.scanner and policy.scanner.command == ("clamscan", "--infected", "a b")
    assert policy.scan_timeout and policy.scan_timeout.value == 60
    assert judge_scan(policy.scanner, None).allowed
    reason = judge_scan(policy.scanner, ["/x: EICAR FOUND", " "])
    assert (reason.allowed, reason.rule, reason.setting.key) == (False, Rule.SCANNER, "Scanner")
    assert "EICAR FOUND" in reason.text


HELD = Incoming("nginx", "2", old="1", archives=(DEBIAN,))
BERLIN = timezone(timedelta(hours=1))


@pytest.mark.parametrize(
    ("holds", "now", "package", "held_by"),
    [
        ([], "2026-12-01 00:00", HELD, None),
        (["nginx=2026-12-24"], "2026-12-01 00:00", HELD, "/a.conf"),
        (["nginx=2026-12-24"], "2026-12-23 23:59", HELD, "/a.conf"),
        (["nginx=2026-12-24"], "2026-12-24 00:00", HELD, None),
        (["nginx=2026-12-24 06:00"], "2026-12-24 05:59", HELD, "/a.conf"),
        (["nginx=2026-12-24T06:00:00"], "2026-12-24 06:00", HELD, None),
        (["nginx=2026-12-24 06:00+00:00"], "2026-12-24 06:30", HELD, "/a.conf"),  # 05:30 there
        (["nginx=2026-12-24 06:00+00:00"], "2026-12-24 07:00", HELD, None),
        (["ngin*=2026-12-24"], "2026-12-01 00:00", HELD, "/a.conf"),
        (["apache2=2026-12-24"], "2026-12-01 00:00", HELD, None),
        (["nginx=2026-12-24", "nginx=2026-11-24"], "2026-12-01 00:00", HELD, None),
        (["nginx=2026-11-24", "nginx=2026-12-24"], "2026-12-01 00:00", HELD, "/b.conf"),
        (["nginx=2026-12-24", "nginx="], "2026-12-01 00:00", HELD, None),
        (["nginx=2026-12-24", "apache2=2026-12-24"], "2026-12-01 00:00", HELD, "/a.conf"),
        (["nginx=2026-12-24"], "2026-12-01 00:00", Incoming("nginx", "2", archives=(DEBIAN,)), None),
    ],
)
def test_holds(holds, now, package, held_by):
    named = [(f"/{name}.conf", f"[Holds]\n{text}") for name, text in zip("abc", holds, strict=False)]
    moment = datetime.fromisoformat(now).replace(tzinfo=BERLIN)
    policy = read_policy(parse_settings(named).policy).at(moment)
    reasons = [refuses_version(policy, package)]  # an upgrade goes on without it
    assert all(reason is None or reason.allowed for reason in reasons)
    reasons += judge_packages(policy, [package])  # a request for another version is refused
    told = [(reason.rule, reason.subject, reason.setting.file) for reason in reasons if reason]
    assert told == ([(Rule.HOLD, "nginx", held_by)] * 2 if held_by else [])


@pytest.mark.parametrize("text", ["nginx=soon", "nginx=24.12.2026", "Nginx=2026-12-24", "nginx=tomorrow"])
def test_a_hold_has_a_package_and_a_date(text):
    with pytest.raises(UsageError, match=r"/a\.conf: \[Holds\] [Nn]ginx: "):
        read_policy(parse_settings([("/a.conf", f"[Holds]\n{text}")]).policy)


WINDOW = "ApplyWindow=Sat 02:00 for 4h; Wed *-*-* 03:00 UTC for 1h 30min"
OPEN, CLOSED, OVER = Times(200.0, 300.0, "Sat"), Times(None, 300.0, "Sat 02:00"), Times(None)


@pytest.mark.parametrize(
    ("text", "reach", "times", "expected"),
    [
        ("", Reach(), CLOSED, {}),
        (WINDOW, Reach(), OPEN, {}),
        (WINDOW, Reach(), CLOSED, {"apply-window": ("ApplyWindow", 300.0)}),
        (WINDOW, Reach(), OVER, {"apply-window": ("ApplyWindow", None)}),
        (WINDOW, Reach(applies=False), CLOSED, {}),
        (WINDOW, Reach(applies=False, reboots=True), CLOSED, {}),
        (f"{WINDOW}\nApplyWindow2=", Reach(), CLOSED, None),
        ("RebootWindow=Sun for 1d", Reach(), CLOSED, {}),
        ("RebootWindow=Sun for 1d", Reach(reboots=True), CLOSED, {"reboot-window": ("RebootWindow", 300.0)}),
        ("RebootWindow=Sun for 1d", Reach(reboots=True), OPEN, {}),
        (
            f"{WINDOW}\nRebootWindow=Sun for 1d",
            Reach(reboots=True),
            CLOSED,
            {"apply-window": ("ApplyWindow", 300.0), "reboot-window": ("RebootWindow", 300.0)},
        ),
    ],
)
def test_windows(text, reach, times, expected):
    if expected is None:
        with pytest.raises(UsageError):
            policy_of(text)
        return
    policy = policy_of(text)
    reasons = [judge_window(rule, row.setting, times) for rule, row in policy.windows_for(reach).items()]
    decision = decide(policy, reasons, "")
    assert {str(r.rule): (r.setting.key, r.opens) for r in decision.refusals} == expected
    assert decision.allowed == (not expected)
    assert not decision.refusals or times.opens_text in decision.refusals[0].text


def test_windows_are_read():
    windows = policy_of(WINDOW).apply_windows
    assert windows
    assert windows.windows == (Window("Sat 02:00", "4h"), Window("Wed *-*-* 03:00 UTC", "1h 30min"))


@pytest.mark.parametrize(
    ("files", "override", "allowed", "expected"),
    [
        (["NeverPackages=x"], "", False, {Rule.NEVER}),
        (["NeverPackages=x"], "an emergency", True, {Rule.NEVER}),
        (["NeverPackages=x\nOverride=yes"], "an emergency", True, {Rule.NEVER}),
        (["NeverPackages=x\nOverride=no"], "an emergency", False, {Rule.NEVER, Rule.OVERRIDE}),
        (["NeverPackages=x\nOverride=no"], "", False, {Rule.NEVER}),
        (["NeverPackages=x\nOverride=no", "Override=yes"], "an emergency", True, {Rule.NEVER}),
        (["NeverPackages=y\nOverride=no"], "an emergency", True, set()),
    ],
)
def test_who_may_override(files, override, allowed, expected):
    policy = policy_of(*files)
    decision = decide(policy, judge_packages(policy, incoming("x")), override)
    assert decision.allowed == allowed
    assert {reason.rule for reason in decision.refusals} == expected
    assert decision.overridden == bool(allowed and expected)


def test_a_rule_that_allows_is_told_with_its_setting():
    policy = policy_of(NEVER)
    (reason,) = decide(policy, judge_packages(policy, incoming("b", "<a")), "").reasons
    assert reason.allowed
    assert reason.text == "may be installed: a, b"
    assert str(reason.setting) == f"/a.conf: [Policy] {NEVER}"


def test_a_dependency_is_told_as_one():
    policy = policy_of(NEVER)
    texts = [str(reason) for reason in judge_packages(policy, incoming("<telnet", "telnetd"))]
    assert texts == [
        f"telnet 1, a dependency, is never installed (/a.conf: [Policy] {NEVER})",
        f"telnetd 1 is never installed (/a.conf: [Policy] {NEVER})",
    ]


def test_the_same_is_told_once_and_a_refusal_drops_what_its_rule_allowed():
    policy = policy_of(NEVER)
    reasons = [*judge_packages(policy, incoming("x")), *judge_packages(policy, incoming("telnet"))] * 2
    (reason,) = decide(policy, reasons, "").reasons
    assert (reason.subject, reason.allowed) == ("telnet", False)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Nothing=1", "Nothing"),
        ("neverpackages=x", "neverpackages"),
        ("NeverPackages='x", "NeverPackages"),
        ("NeverPackages=Nginx", "NeverPackages"),
        ("OnlyPackages=a,b", "OnlyPackages"),
        ("Origins=Debian", "Origins"),
        ("Origins=origin=Debian,", "Origins"),
        ("Origins=vendor=Debian", "Origins"),
        ("SecurityOnly=1", "SecurityOnly"),
        ("ApplyWindow=Sat 02:00", "ApplyWindow"),
        ("ApplyWindow=Sat 02:00 for", "ApplyWindow"),
        ("ApplyWindow=for 4h", "ApplyWindow"),
        ("RebootWindow=Sat 02:00 for 4h;", "RebootWindow"),
        ("Approval=install rollback", "Approval"),
        ("Approval=unlock", "Approval"),
        ("ApprovalBy=me", "ApprovalBy"),
        ("Scanner='x", "Scanner"),
        ("ScanTimeout=1min", "ScanTimeout"),
        ("ScanTimeout=0", "ScanTimeout"),
        ("Override=maybe", "Override"),
        ("Override=true", "Override"),
    ],
)
def test_a_mistake_names_file_and_key(text, named):
    with pytest.raises(UsageError) as caught:
        policy_of("", text)
    assert caught.value.message.startswith("/b.conf: ")
    assert named in caught.value.message


def test_a_mistake_is_none_of_the_other_settings():
    settings = parse_settings([("/a.conf", "[Live]\nKeepGenerations=3\n[Policy]\nNothing=1")])
    assert settings.keep_generations == 3


def test_the_settings_in_effect_have_their_files():
    policy = policy_of(NEVER, f"{ONLY}\nOverride=no", "NeverPackages=x")
    assert [(s.file, s.key, s.value) for s in policy.settings] == [
        ("/c.conf", "NeverPackages", "x"),
        ("/b.conf", "OnlyPackages", "nginx* lib* htop"),
        ("/b.conf", "Override", "no"),
    ]
