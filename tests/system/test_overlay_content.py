"""What overlays hold: templates, conditions, rules, a scanner; and what it means for services."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from testbed_lib.machine import Machine

from tests.system.livehost import Host, ask, same, unit_steps, wait_for
from tests.system.overlayhost import Overlays, configure, texts

SITE = "/etc/site.conf"
TOOL = "/usr/bin/fx-tool"
CONF = "/etc/fx-service.conf"


@pytest.fixture
def overlays(host: Host, overlays: Overlays) -> Iterator[Overlays]:
    """The overlays of the module's machine, which the configuration of a test does not keep from going."""
    yield overlays
    host.sh("find /etc/apt-ostree -mindepth 1 ! -name configured.json -delete")


# --- templates, values, conditions, inheritance


def test_templates_values_and_inheritance(host: Host, overlays: Overlays):
    text = "workers={{ machine.cpus }}\\nname={{ values.name }}\\non={{ os.ID }} {{ machine.hostname }}\\n"
    host.sh(f"printf '{text}' >/run/site.j2; echo '{{{{ values.nobody }}}}' >/run/undefined.j2")
    overlays("--create", "--name=site", "--set", "name=plain", "--disable",
             f"--add={SITE}", "--from=/run/site.j2", "--template", "--mode=0640")  # fmt: skip
    assert not host.exists(SITE)
    overlays("--create", "--name=front", "--inherit=site", "--set", "name=shop",
             "--when", 'os.VERSION_ID == "13"')  # fmt: skip
    cpus, name = host.sh("nproc; hostname").split()
    wanted = f"workers={cpus}\nname={{}}\non=debian {name}\n"
    assert texts(host, (SITE,)) == {SITE: wanted.format("shop")}
    assert host.sh(f"stat -c %a {SITE}") == "640\n"
    assert overlays.read("--list", "--name=site")["paths"] == [
        {"path": SITE, "kind": "added", "template": True, "when": ""}
    ]
    overlays("--name=front", "--set", "name=store")
    assert texts(host, (SITE,)) == {SITE: wanted.format("store")}
    overlays("--name=site", "--set", "name=other")  # the heir's value counts
    assert texts(host, (SITE,)) == {SITE: wanted.format("store")}
    host.sh("echo 'name {{ values.name }}' >/run/site.j2")
    overlays("--name=site", f"--modify={SITE}", "--from=/run/site.j2", "--template")
    assert texts(host, (SITE,)) == {SITE: "name store\n"}, (
        "rendered anew, since what is inherited has changed"
    )
    before = host.look()
    told = overlays("--name=front", "--add=/etc/more.conf", "--from=/run/undefined.j2", "--template", code=2)
    assert "/etc/more.conf" in told["message"] and "nobody" in told["message"]
    overlays("--name=site", "--remove", code=3)  # front needs it
    same(before.everything(), host.look().everything())
    overlays("--name=front", "--inherit=")
    assert not host.exists(SITE)
    overlays("--name=site", "--remove")


def test_conditions(host: Host, overlays: Overlays):
    host.sh("echo 1 >/run/one")
    overlays("--create", "--name=never", "--add=/usr/share/fx-never", "--from=/run/one",
             "--when", 'os.VERSION_ID == "12"')  # fmt: skip
    overlays.new("some", {"/usr/share/fx-always": "1\n"})
    for name, condition in (("more", "machine.cpus > 0"), ("less", "machine.cpus == 0")):
        overlays("--name=some", f"--add=/usr/share/fx-{name}", "--from=/run/one", "--when", condition)
    paths = [f"/usr/share/fx-{name}" for name in ("never", "always", "more", "less")]
    assert texts(host, paths) == dict(zip(paths, (None, "1\n", "1\n", None), strict=True))
    found = overlays.list()
    assert found["never"]["enabled"] and not found["never"]["shown"]
    told = overlays("--name=some", "--add=/usr/share/fx-x", "--from=/run/one", "--when", "1 +", code=2)
    assert "/usr/share/fx-x" in told["message"]


# --- rules, scanner, users


def test_a_rule_can_be_broken_by_one_overlay_or_by_all(host: Host, overlays: Overlays):
    host.sh("echo tool >/run/tool")
    evil = (f"--add={TOOL}", "--from=/run/tool", "--mode=4755")
    assert "(setuid)" in str(overlays("--create", "--name=evil", *evil, code=3)["details"])
    overlays("--create", "--name=evil", *evil, "--allow=setuid")
    assert host.sh(f"stat -c %a {TOOL}") == "4755\n"
    overlays("--name=evil", "--allow=", code=3)
    overlays("--name=evil", "--remove")
    configure(host, "Allow=setuid world-writable")
    overlays("--create", "--name=evil", *evil)
    overlays("--create", "--name=more", "--add=/usr/bin/dpkg", "--from=/run/tool", code=3)
    configure(host, "Allow=setuid protected")  # never, whatever anybody allows
    more = ("--create", "--name=more", "--remove-file=/usr/bin/dash", "--allow=protected")
    assert "(protected)" in str(overlays(*more, code=3)["details"])
    configure(host, "Allow=nonsense")
    overlays("--name=evil", "--set-priority=1", code=2)
    configure(host, "Allow=")
    assert overlays("--name=evil", "--set-priority=0", code=3)["error"] == "Refused"  # judged anew
    assert overlays.list()["evil"]["priority"] == 50 and overlays.list()["evil"]["shown"]
    configure(host, "Allow=setuid")
    overlays("--name=evil", "--set-priority=0")
    assert overlays.list()["evil"]["priority"] == 0


def test_a_scanner_decides(host: Host, overlays: Overlays):
    script = "#!/bin/sh\nif grep -rl EVIL $1; then exit 1; fi\necho $1 >>/run/scanned\n"
    host.sh(f"printf '%s' '{script}' >/run/scan; chmod +x /run/scan; mount -o remount,exec /run")
    configure(host, "Scanner=/run/scan")
    before = host.look()
    told = overlays.put("bad", {TOOL: "this is EVIL\n"}, "--create", code=3)
    assert "system/bad" in told["message"] and TOOL.removeprefix("/usr") in str(told["details"])
    same(before.system(), host.look().system())
    overlays.new("good", {TOOL: "good\n"})
    assert len(host.sh("cat /run/scanned").splitlines()) == 1
    overlays.put("good", {TOOL: "EVIL\n"}, code=3)
    assert texts(host, (TOOL,)) == {TOOL: "good\n"}
    configure(host, "Scanner=/run/nothing")
    overlays.put("good", {TOOL: "better\n"}, code=3)  # what cannot be scanned is not shown
    configure(host, "Scanner=sleep 60\nScanTimeout=1")
    overlays.put("good", {TOOL: "better\n"}, code=3)
    assert texts(host, (TOOL,)) == {TOOL: "good\n"}


@pytest.mark.extended
def test_clamav_decides(machine: Machine):
    """Debian's own scanner, as the manual has it, with a signature of the test's own."""
    host = Host(machine)
    overlays = Overlays(host)
    host.run("apt-ostree", "install", "-A", "-y", "clamav", timeout=600)
    host.sh("echo infected >/run/evil; sigtool --md5 /run/evil >/var/lib/clamav/test.hdb")
    configure(host, "Scanner=/usr/bin/clamscan --recursive --infected --no-summary")
    told = overlays("--create", "--name=bad", f"--add={TOOL}", "--from=/run/evil", code=3)
    assert "FOUND" in str(told["details"]) and not host.exists(TOOL)
    overlays.new("good", {TOOL: "healthy\n"})
    assert texts(host, (TOOL,)) == {TOOL: "healthy\n"}


def test_an_overlay_for_a_user_only_adds(host: Host, overlays: Overlays):
    host.sh("echo tool >/run/tool")
    user = ("--create", "--name=theirs", "--scope=user")
    add = (f"--add={TOOL}", "--from=/run/tool")
    overlays(*user, *add, code=2)  # for whom?
    overlays("--create", "--name=theirs", "--user=nobody", *add, code=2)
    told = overlays(*user, "--user=noone-known", *add, code=2)
    assert "noone-known" in told["message"]
    overlays(*user, "--user=nobody", *add, "--mode=0755")
    row = overlays.list()["theirs"]
    assert (row["id"], row["user"], row["shown"]) == ("user/theirs", "nobody", True)
    refused = {
        "user-adds-only": ("--add=/usr/bin/getent", "--from=/run/tool"),
        "user-etc": ("--add=/etc/fx-x", "--from=/run/tool"),
        "user-privilege": ("--add=/usr/bin/fx-y", "--from=/run/tool", "--mode=4755"),
        "user-root-code": ("--add=/usr/lib/systemd/system/fx-y.service", "--from=/run/tool"),
    }
    for rule, words in refused.items():
        told = overlays("--name=theirs", *words, "--allow=setuid", code=3)
        assert f"({rule})" in str(told["details"]), (rule, told)
    overlays("--name=theirs", "--remove-file=/usr/bin/getent", code=3)
    assert texts(host, (TOOL,)) == {TOOL: "tool\n"}


# --- services, health checks, confirmation


@pytest.fixture
def service(host: Host) -> Host:
    host.ao("install", "-A", "-y", "fx-service")
    assert host.answer() == "1.0\ngreeting=hello\n"
    return host


def test_services_are_treated_as_with_a_packages_update(service: Host, overlays: Overlays):
    before = service.look()
    result = overlays.new("web", {CONF: "greeting=theirs\n"})
    assert unit_steps(result["plan"]) == {"fx-service.service": ("restart", False)}
    assert service.answer() == "1.0\ngreeting=hello\n"
    result = overlays.put("web", {CONF: "greeting=ours\n"}, "--restart-services")
    assert unit_steps(result["plan"]) == {"fx-service.service": ("restart", True)}
    assert service.answer() == "1.0\ngreeting=ours\n"
    overlays("--disable=web", "--restart-services")
    assert service.answer() == "1.0\ngreeting=hello\n"
    same({"etc": before.etc, "usr": before.usr}, {"etc": service.look().etc, "usr": service.look().usr})
    service.ao("rollback", "--live", "--restart-services=needed")
    assert service.answer() == "1.0\ngreeting=ours\n"


def test_an_overlay_with_which_a_service_does_not_run_is_undone(service: Host, overlays: Overlays):
    before = service.look()
    daemon = {"/usr/libexec/fx-service/daemon": "#!/bin/sh\nexit 1\n"}
    told = overlays.put("bad", daemon, "--create", "--restart-services", code=1)
    assert "fx-service" in told["message"]
    assert service.answer() == "1.0\ngreeting=hello\n"
    assert overlays.list() == {}
    same(before.system(), service.look().system())
    service.sh("mkdir -p /etc/apt-ostree/health.d;"
               "printf '#!/bin/sh\\n! test -e /usr/share/fx-sick\\n' >/etc/apt-ostree/health.d/fx;"
               "chmod +x /etc/apt-ostree/health.d/fx")  # fmt: skip
    before = service.look()
    overlays.put("sick", {"/usr/share/fx-sick": "x\n"}, "--create", code=1)
    same(before.system(), service.look().system())
    overlays.new("well", {"/usr/share/fx-well": "x\n"})


def test_what_nobody_confirms_is_undone(service: Host, overlays: Overlays):
    overlays.new("web", {TOOL: "1\n"})
    before = service.look()
    recorded = overlays.list()["web"]["commit"]
    overlays.put("web", {TOOL: "2\n", CONF: "greeting=2\n"}, "--restart-services", "--confirm-within=3s")
    assert service.answer() == "1.0\ngreeting=2\n"
    wait_for(service, f"grep -q 1 {TOOL}")
    wait_for(service, f"{' '.join(ask())} | grep -q hello")
    wait_for(service, "! pgrep -f '[a]pt-ostree recover'")
    assert overlays.list()["web"]["commit"] == recorded
    same(before.system(), service.look().system())
    overlays.put("web", {TOOL: "3\n"}, "--confirm-within=5s")
    service.ao("confirm")
    service.sh("sleep 6")
    assert texts(service, (TOOL,)) == {TOOL: "3\n"}
    entries = service.json("history")
    assert [e["outcome"] for e in entries if "--name=web" in e["verb"]][-2:] == ["unconfirmed", "live"], (
        entries
    )
