"""status: rpm-ostree's JSON keys, the text made of a value, JSONPath."""

import json
from dataclasses import replace

import pytest

from apt_ostree import errors
from apt_ostree.cli import statusview
from apt_ostree.model.deployment import Deployment, Uncompleted
from apt_ostree.model.generation import Generation, Phase
from apt_ostree.model.jsonpath import query
from apt_ostree.model.newer import Newer
from apt_ostree.model.origin import LocalPackage, Origin
from apt_ostree.model.package import Package, PackageChange, PackageDiff
from apt_ostree.model.signature import Signature
from apt_ostree.model.status import AutomaticStatus, Commit, DeploymentStatus, Live, Status, live_records
from apt_ostree.model.update import Update
from apt_ostree.model.verdict import Mark, Return, Way

BASE, LAYERED, LIVE = "b" * 64, "c" * 64, "d" * 64
HTOP = Package("htop", "3.4.1-5", "amd64")
PLAIN = Origin("deb:debian/13/amd64")
ARRAYS = {
    "packages",
    "requested-packages",
    "requested-local-packages",
    "requested-local-fileoverride-packages",
    "requested-base-removals",
    "requested-base-local-replacements",
    "base-removals",
    "base-local-replacements",
}


def deployment(index=0, checksum=BASE, origin=PLAIN, **flags):
    fields = {"booted": False, "staged": False, "pinned": False, "unlocked": "none", **flags}
    return Deployment(index, "debian", checksum, 0, f"deploy/{checksum}.0", origin, **fields)


def booted(**fields):
    return DeploymentStatus(deployment(booted=True), Commit(BASE, 0, "13.1"), **fields)


def pending():
    origin = Origin(
        "deb:debian/13/amd64",
        requested=("bash", "htop"),
        local=(LocalPackage("0" * 64, "tool", "1.0", "all"),),
        upgraded=True,
    )
    return DeploymentStatus(
        deployment(checksum=LAYERED, origin=origin, staged=True),
        Commit(LAYERED, 60, "13.1"),
        base=Commit(BASE, 0, "13.1"),
        layered=("htop",),
        upgraded=(PackageChange("dash", "amd64", "1", "2"),),
        diff=PackageDiff(added=(HTOP,)),
    )


def rows(*entries, **options):
    """Return the table's rows of the first deployment; the value by the key."""
    text = list(statusview.lines(Status(entries).to_json(), **options))[3:]
    table = text[: text.index("")] if "" in text else text
    return {key.strip(): value for key, _, value in (line.partition(": ") for line in table)}


def test_json_of_a_plain_deployment():
    found = json.loads(json.dumps(Status((booted(),)).to_json()))
    assert (found["transaction"], found["cached-update"], found["update-driver"]) == (None, None, None)
    (entry,) = found["deployments"]
    assert entry["id"] == f"debian-{BASE}.0"
    assert (entry["booted"], entry["staged"], entry["pinned"]) == (True, False, False)
    assert (entry["origin"], entry["version"], entry["unlocked"]) == ("deb:debian/13/amd64", "13.1", "none")
    assert {key for key in ARRAYS if entry[key] == []} == ARRAYS
    assert entry["base-remote-replacements"] == {}
    assert entry["regenerate-initramfs"] is False
    assert not {"base-checksum", "layered-commit-meta", "live-replaced", "live-inprogress"} & entry.keys()


def test_json_of_a_known_update():
    diff = PackageDiff(added=(HTOP,), changed=(PackageChange("dash", "amd64", "1", "2"),))
    known = Update(
        against=BASE, osname="debian", origin=PLAIN.refspec, commit=LAYERED, version="13.2", timestamp=5,
        new_base=True, gpg_enabled=True, diff=diff, layered=("htop",),
    )  # fmt: skip
    found = json.loads(json.dumps(Status((booted(),), update=known).to_json()))["cached-update"]
    assert found == {
        "osname": "debian",
        "checksum": LAYERED,
        "version": "13.2",
        "timestamp": 5,
        "origin": PLAIN.refspec,
        "gpg-enabled": True,
        "ref-has-new-commit": True,
        "update-sha256": BASE,
        "rpm-diff": {
            "upgraded": [[0, "dash", ["1", "amd64"], ["2", "amd64"]]],
            "downgraded": [],
            "added": [[1, "htop", "3.4.1-5", "amd64"]],
            "removed": [],
        },
    }
    only_base = replace(known, diff=PackageDiff(), version=None)
    found = Status((booted(),), update=only_base).to_json()["cached-update"]
    assert not {"rpm-diff", "version", "deployment"} & found.keys()


def test_automatic_updates_that_were_deferred():
    assert Status((booted(),)).to_json()["automatic-updates"] is None
    reason = "users logged in (alice) [RebootWithUsers=no]"
    told = AutomaticStatus("apply", True, 0.0 + 60, "deferred", (reason,), 30.0)
    found = Status((booted(),), automatic=told).to_json()
    assert found["automatic-updates"] == {
        "policy": "apply",
        "timer": "active",
        "last-run": 60.0,
        "outcome": "deferred",
        "reasons": [reason],
        "waiting-since": 30.0,
        "failed-attempts": 0,
        "prediction": None,
    }
    text = list(statusview.lines(found))
    assert text[1].startswith("AutomaticUpdates: apply; ") and text[1].endswith(
        "last run 1970-01-01T00:01:00Z"
    )
    assert text[2] == f"  deferred: {reason}"


def test_automatic_updates_that_nobody_has_enabled():
    (line,) = [
        line
        for line in statusview.lines(Status((booted(),), automatic=AutomaticStatus("check", False)).to_json())
        if line.startswith("AutomaticUpdates")
    ]
    assert line.endswith("inactive, no run yet")


def test_the_update_that_is_available():
    diff = PackageDiff(added=(HTOP,), changed=(PackageChange("dash", "amd64", "1", "2"),))
    update = Update(
        against=BASE, osname="debian", origin=PLAIN.refspec, commit=LAYERED, version="13.2", timestamp=5,
        new_base=True, gpg_enabled=True, diff=diff,
    )  # fmt: skip
    text = list(statusview.lines(Status((booted(),), update=update).to_json()))
    table = [line.strip() for line in text[text.index("AvailableUpdate:") + 1 :]]
    assert table == [
        "Version: 13.2 (1970-01-01T00:00:05Z)",
        f"Commit: {LAYERED}",
        "Diff: 1 upgraded (dash), 1 added (htop)",
    ]


def test_json_of_a_layered_deployment():
    entry = pending().to_json()
    assert (entry["checksum"], entry["base-checksum"], entry["base-timestamp"]) == (LAYERED, BASE, 0)
    assert entry["packages"] == ["htop"]
    assert entry["requested-packages"] == ["bash", "htop"]
    assert entry["requested-local-packages"] == ["tool=1.0"]
    assert [change["name"] for change in entry["upgraded-packages"]] == ["dash"]
    assert [package["name"] for package in entry["diff"]["added"]] == ["htop"]


def test_a_file_that_replaces_a_package_of_the_base_is_told_once():
    files = (LocalPackage("0" * 64, "dash", "2", "amd64"), LocalPackage("1" * 64, "tool", "1.0", "all"))
    one = pending()
    entry = replace(one, deployment=deployment(origin=Origin(PLAIN.refspec, local=files))).to_json()
    assert entry["requested-base-local-replacements"] == ["dash=2"]
    assert [change["name"] for change in entry["base-local-replacements"]] == ["dash"]
    assert entry["requested-local-packages"] == ["tool=1.0"]


def test_a_replacement_that_the_base_gives_no_place_to():
    file = LocalPackage("0" * 64, "tool", "1.0", "all")
    origin = Origin(PLAIN.refspec, local=(file,), overriding=("tool",))
    one = replace(pending(), deployment=deployment(origin=origin))
    entry = one.to_json()
    assert (entry["requested-base-local-replacements"], entry["base-local-replacements"]) == (
        ["tool=1.0"],
        [],
    )
    assert entry["requested-local-packages"] == []
    assert rows(one)["InactiveBaseReplacements"] == "tool=1.0"


def test_the_end_of_a_branch_is_that_of_what_is_layered_on_it():
    one = pending()
    assert "endoflife" not in one.to_json()
    ended = replace(one, base=Commit(BASE, 0, "13.1", {"ostree.endoflife": "follow debian/14"}))
    assert rows(ended)["EndOfLife"] == "follow debian/14"


def test_a_commit_without_a_version_has_none():
    plain = DeploymentStatus(deployment(), Commit(LAYERED, 0), base=Commit(BASE, 0))
    assert not {"version", "base-version"} & plain.to_json().keys()
    assert "Timestamp" in rows(plain)
    (line,) = statusview.brief(Status((plain,)).to_json())
    assert "None" not in line


def test_json_of_live_state():
    entry = booted(live=Live(LIVE, 3, PackageDiff(added=(HTOP,)), shown=False)).to_json()
    assert entry["live-replaced"] == LIVE
    assert entry["live-generation"] == {"number": 3, "shown": False, "confirm-by": None}
    assert "live-inprogress" not in entry
    entry = booted(live=Live(unfinished=LIVE)).to_json()
    assert entry["live-inprogress"] == LIVE
    assert "live-replaced" not in entry


def test_text_marks_the_booted_deployment():
    lines = list(statusview.lines(Status((pending(), booted())).to_json()))
    assert lines[:2] == ["State: idle", "Deployments:"]
    assert [line for line in lines if line.startswith("●")] == ["● deb:debian/13/amd64"]
    assert next(statusview.lines(Status((), busy=True).to_json())) == "State: busy"


def test_text_of_an_image():
    image, digest = "ostree-unverified-registry:e.org/os:13", f"sha256:{'a' * 64}"
    entry = booted()
    origin = Origin(image=image, image_digest=digest)
    entry = replace(entry, deployment=replace(entry.deployment, origin=origin))
    lines = list(statusview.lines(Status((entry,)).to_json()))
    assert f"● {image}" in lines
    assert [line.strip() for line in lines if "Digest" in line] == [f"Digest: {digest}"]
    assert next(statusview.brief(Status((entry,)).to_json())).startswith(f"● {image} ")


def test_the_image_that_is_available():
    update = Update(
        against=BASE,
        osname="debian",
        origin="ostree-image-signed:oci:/x",
        commit="",
        version=None,
        timestamp=0,
        new_base=True,
        gpg_enabled=False,
        diff=PackageDiff(),
        digest="sha256:1",
    )
    found = Status((booted(),), update=update).to_json()
    assert found["cached-update"]["container-image-reference-digest"] == "sha256:1"
    assert "checksum" not in found["cached-update"]
    text = [line.strip() for line in statusview.lines(found)]
    assert text[text.index("AvailableUpdate:") + 1 :] == ["Digest: sha256:1"]


def test_newer_versions_of_what_is_pinned():
    security = Newer("tool=1.0", "1.1", "Debian:stable-security/main", security=True)
    entry = replace(pending(), newer=(security, Newer("tool=1.0", "2.0", "Debian:stable/main")))
    assert entry.to_json()["newer-versions"] == [
        {
            "request": "tool=1.0",
            "version": "1.1",
            "origin": "Debian:stable-security/main",
            "security": True,
        },
        {"request": "tool=1.0", "version": "2.0", "origin": "Debian:stable/main", "security": False},
    ]
    assert rows(entry)["NewerVersions"] == "tool=1.0: 1.1 (security), tool=1.0: 2.0"
    assert booted().to_json()["newer-versions"] == []
    assert "NewerVersions" not in rows(booted())


def test_text_of_a_layered_deployment():
    found = rows(pending(), booted())
    assert found["BaseCommit"] == BASE
    assert "Commit" not in found
    assert found["LayeredPackages"] == "htop"
    assert found["InactiveRequests"] == "bash"
    assert found["LocalPackages"] == "tool=1.0"
    assert found["UpgradedPackages"] == "dash"
    assert found["Diff"] == "1 added (htop)"
    assert found["Staged"] == "yes"
    found = rows(pending(), verbose=True)
    assert found["Commit"] == LAYERED
    assert found["UpgradedPackages"] == "dash 1 -> 2"
    assert found["Diff"] == "1 added (htop 3.4.1-5)"


def test_text_of_live_state():
    live = Live(LIVE, 3, PackageDiff(added=tuple(Package(f"p{n}", "1", "all") for n in range(10))))
    found = rows(booted(live=live))
    assert found["BootedCommit"] == BASE
    assert found["LiveCommit"] == f"{LIVE} (generation 3)"
    assert found["LiveDiff"] == "10 added (p0, p1, p2, p3, p4, p5, p6, p7, 2 more)"
    assert not {"Commit", "LiveState", "InterruptedLiveCommit"} & found.keys()
    assert "LiveState" in rows(booted(live=Live(LIVE, 3, shown=False)))
    assert rows(booted(live=Live(unfinished=LIVE)))["InterruptedLiveCommit"].startswith(LIVE)


def test_brief_is_one_line_for_each():
    assert list(statusview.brief(Status((pending(), booted())).to_json(), bullet="*")) == [
        f"  deb:debian/13/amd64 13.1 {LAYERED[:12]}",
        f"* deb:debian/13/amd64 13.1 {BASE[:12]}",
    ]


DOCUMENT = {"deployments": [{"id": "a", "booted": True}, {"id": "b", "x": {"id": "c"}}], "transaction": None}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$", [DOCUMENT]),
        ("$.deployments[0].id", ["a"]),
        ("$['deployments'][-1]['id']", ["b"]),
        ("$.deployments[*].id", ["a", "b"]),
        ("$.deployments[0,1].id", ["a", "b"]),
        ("$.deployments[1:].id", ["b"]),
        ("$..id", ["a", "b", "c"]),
        ("$.deployments.*.booted", [True]),
        ("$.transaction", [None]),
        ("$.nothing", []),
        ("$.deployments[7]", []),
    ],
)
def test_jsonpath(path, found):
    assert query(DOCUMENT, path) == found


@pytest.mark.parametrize("path", ["", "deployments", "$.", "$[", "$[x]", "$deployments", "$.a[::0]", "$...a"])
def test_what_is_no_jsonpath(path):
    with pytest.raises(errors.UsageError):
        query(DOCUMENT, path)


def generation(number, phase=Phase.LIVE, confirm_by=None):
    return Generation(number, "boot", "d.0", "s", "t", f"base{number}", (), (), (), phase, 0.0, confirm_by)


@pytest.mark.parametrize(
    ("generations", "newest", "unfinished", "mounted", "confirm_by"),
    [
        ([generation(1)], 1, None, {1}, None),
        ([generation(1), generation(2)], 2, None, {2}, None),
        ([generation(1, Phase.ACTING)], None, "base1", {1}, None),  # it may show already
        ([generation(1), generation(2, Phase.ACTING)], 1, "base2", {1, 2}, None),
        ([generation(1), generation(2, Phase.UNDOING)], 1, "base2", {1, 2}, None),
        ([generation(1, confirm_by=90.0), generation(2, confirm_by=60.0), generation(3)], 3, None, {3}, 60.0),
        # An unfinished one is undone anyway, and has no time to be confirmed in.
        ([generation(1, confirm_by=90.0), generation(2, Phase.ACTING, 60.0)], 1, "base2", {1, 2}, 90.0),
    ],
)
def test_what_records_say_of_the_live_state(generations, newest, unfinished, mounted, confirm_by):
    records = live_records(generations)
    assert (records.newest.id if records.newest else None) == newest
    assert (records.unfinished, records.mounted) == (unfinished, mounted)
    assert records.confirm_by == confirm_by


GONE = Uncompleted(LAYERED, 60.0, "Copying vmlinuz-6.1: No space left on device")


def test_a_deployment_that_no_shutdown_completed():
    state = Status((booted(),), uncompleted=GONE)
    assert state.to_json()["uncompleted-deployment"] == {
        "checksum": LAYERED,
        "staged": 60.0,
        "reason": GONE.reason,
    }
    assert Status(()).to_json()["uncompleted-deployment"] is None
    warning = list(statusview.lines(state.to_json()))[1]
    assert warning.startswith("Warning: ") and LAYERED[:12] in warning and GONE.reason in warning
    unknown = list(statusview.lines(Status((), uncompleted=replace(GONE, reason="")).to_json()))[1]
    assert "journalctl -u ostree-finalize-staged.service" in unknown


def test_what_another_program_has_mounted_over_usr():
    (entry,) = Status((booted(mounted_over="sysext"),)).to_json()["deployments"]
    assert entry["mounted-over"] == "sysext"
    mark = Mark("i", Way.LIVE, "c", 5.0, "a check")
    back = Return("debian-0123456789abcdef.0", "d", 5.0, "a unit")
    found = rows(booted(failed=(mark,), back=back))
    assert found["Failed"].startswith("live on ")
    assert found["Failed"].endswith(": a check")
    assert found["RolledBack"].endswith(" from 0123456789ab: a unit")
    assert rows(booted(mounted_over="sysext"))["MountedOver"] == "/usr, by another program: sysext"
    assert "mounted-over" not in Status((booted(),)).to_json()["deployments"][0]


GOOD = Signature(True, False, False, False, False, "AB" * 20, 1, 0, "EdDSA", "SHA512", "OS", "os@example.com")
EXPIRED = replace(GOOD, valid=False, expired=True, expires=86400, fingerprint="CD" * 20)


@pytest.mark.parametrize(
    ("signatures", "told"),
    [
        ((EXPIRED, GOOD), [f"Valid signature by {'AB' * 20}"]),
        ((EXPIRED,), [f"Signature by {'CD' * 20}: it has expired at 1970-01-02T00:00:00Z"]),
        ((), ["none, but the remote's configuration requires one"]),
    ],
)
def test_signatures(signatures, told):
    status = Status((booted(gpg_enabled=True, signatures=signatures),)).to_json()
    lines = [line.strip() for line in statusview.lines(status)]
    assert [line.removeprefix("GPGSignature: ") for line in lines if "GPGSignature" in line] == told
    verbose = [line for line in statusview.lines(status, verbose=True) if "GPGSignature" in line]
    assert len(verbose) == max(1, len(signatures))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"key_missing": True}, "the remote's keyring does not have the key"),
        ({"key_revoked": True}, "the key was revoked"),
        ({"key_expired": True, "expired": True}, "the key has expired"),
        ({}, "it is not of this commit, or damaged"),
    ],
)
def test_what_is_wrong_with_a_signature(changes, reason):
    assert replace(GOOD, valid=False, **changes).describe().endswith(f": {reason}")


def test_advisories():
    assert "SecAdvisories" not in rows(pending(), booted())
    status = Status((pending(), booted())).to_json()
    status["deployments"][0]["advisories"] = [{"package": "dash", "version": "2", "cves": ["CVE-1", "CVE-2"]}]
    assert any("SecAdvisories: dash 2: CVE-1 CVE-2" in line for line in statusview.lines(status))


def test_an_initramfs_of_the_machines_own():
    assert "Initramfs" not in rows(booted())
    for arguments, text in (((), "regenerate"), (("-I", "/etc/a b"), "regenerate -I '/etc/a b'")):
        one = DeploymentStatus(
            deployment(booted=True, origin=replace(PLAIN, initramfs=arguments)), Commit(BASE, 0)
        )
        assert rows(one)["Initramfs"] == text
        assert one.to_json()["regenerate-initramfs"] and one.to_json().get("initramfs-args", []) == [
            *arguments
        ]


def test_what_the_initramfs_has_of_etc():
    assert "InitramfsEtc" not in rows(booted()) and "initramfs-etc" not in booted().to_json()
    tracked = ("/etc/cmdline.d", "/etc/fstab")
    one = DeploymentStatus(
        deployment(booted=True, origin=replace(PLAIN, initramfs_etc=tracked)), Commit(BASE, 0)
    )
    assert rows(one)["InitramfsEtc"] == "/etc/cmdline.d /etc/fstab"
    assert one.to_json()["initramfs-etc"] == [*tracked] and not one.to_json()["regenerate-initramfs"]


def test_what_needs_no_signature():
    assert rows(booted())["GPGSignature"] == "not required (gpg-verify=false of the remote deb)"
    local = DeploymentStatus(deployment(booted=True, origin=Origin("debian/13")), Commit(BASE, 0, "13.1"))
    assert "GPGSignature" not in rows(local)
