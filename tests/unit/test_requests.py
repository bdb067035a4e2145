"""Each verb's request: read strictly from JSON, and every mistake is named by the verb and the field."""

from __future__ import annotations

import io
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apt_ostree import worker
from apt_ostree.errors import UsageError
from apt_ostree.model.kargs import Changes
from apt_ostree.model.openfile import OpenFile
from apt_ostree.model.overlay import EditAction
from apt_ostree.model.overlay_edit import PathEdit
from apt_ostree.model.requests import VERBS, kind_of, read_request
from apt_ostree.model.requests.archives import RefreshMd
from apt_ostree.model.requests.automatic import AutomaticUpdate
from apt_ostree.model.requests.compose import (
    ComposeCommit,
    ComposeExtensions,
    ComposeInstall,
    ComposePostprocess,
    ComposePublish,
    ComposeRootfs,
    ComposeSign,
    ComposeTree,
)
from apt_ostree.model.requests.deployments import (
    BootloaderRollback,
    BootloaderUpdate,
    Cleanup,
    Deploy,
    FinalizeDeployment,
    Initramfs,
    InitramfsEtc,
    Kargs,
    Pin,
    Rebase,
    Rollback,
    Unpin,
)
from apt_ostree.model.requests.images import (
    ComposeDisk,
    ComposeImage,
    ContainerCommit,
    ContainerPrepare,
    InstallToDisk,
    InstallToExistingRoot,
)
from apt_ostree.model.requests.live import ApplyLive, Confirm, Moment, Recover, RollbackLive
from apt_ostree.model.requests.options import DeployOptions, LiveOptions
from apt_ostree.model.requests.overlays import (
    EditOverlay,
    OverlayBackup,
    OverlayCheck,
    OverlayCleanup,
    OverlayRestore,
    Unlock,
    UnlockDiscard,
    UnlockSave,
)
from apt_ostree.model.requests.packages import Install, Override, Reset, Run, Uninstall, Upgrade
from apt_ostree.model.requests.policy import Approve
from tests.unit import request_cases

LIVE = DeployOptions(live=LiveOptions())
KINDS = {verb: kind_of(verb) for verb in VERBS}
CASES = [(kind, label, value) for kind in KINDS.values() for label, value in request_cases.malformed(kind)]
NO_OBJECTS = [None, True, 0, 1.5, "text", [], ["packages"]]


def served(line: str) -> tuple[int, list[dict]]:
    """Return what the worker makes of a first line: its exit code, and what it wrote."""
    wire = io.StringIO()
    code = worker.serve(io.StringIO(line), wire)
    return code, [json.loads(row) for row in wire.getvalue().splitlines()]


def refusal(line: str) -> str:
    """Return the message with which the worker does not accept a first line."""
    code, (end,) = served(line)
    assert (code, end["event"], end["ok"], end["error"]) == (2, "end", False, "UsageError")
    assert not end["internals"]
    return end["message"]


# --- mistakes


def test_the_cases_cover_every_field():
    covered = {(kind, name) for kind, _label, value in CASES for name in value}
    missing = [
        (verb, name)
        for verb, kind in KINDS.items()
        for name in request_cases.hints(kind)
        if (kind, name) not in covered
    ]
    assert not missing
    assert len(CASES) > 1000


def test_each_mistake_is_named_by_verb_and_field():
    wrong = []
    for kind, label, value in CASES:
        try:
            wrong.append(read_request(kind.verb, value))
        except UsageError as error:
            if not (error.message.startswith(f"{kind.verb}: ") and label in error.message):
                wrong.append((error.message, label, value))
    assert not wrong


@pytest.mark.parametrize("verb", KINDS)
def test_the_worker_answers_each_mistake_with_a_usage_error(verb):
    kind = KINDS[verb]
    for label, value in request_cases.malformed(kind):
        message = refusal(json.dumps({"verb": verb, "request": value}))
        assert message.startswith(f"{verb}: "), value
        assert label in message, value


@pytest.mark.parametrize("verb", KINDS)
def test_a_request_is_an_object(verb):
    for value in NO_OBJECTS:
        message = refusal(json.dumps({"verb": verb, "request": value}))
        assert message.startswith(f"{verb}: expected an object")


@pytest.mark.parametrize("verb", [verb for verb, kind in KINDS.items() if request_cases.required(kind)])
def test_what_is_required_has_no_default(verb):
    field = request_cases.required(KINDS[verb])[0]
    assert refusal(json.dumps({"verb": verb})) == f"{verb}: the field {field!r} is missing"


@pytest.mark.parametrize("verb", [None, "", "no-such-verb", "status", 1, True, ["install"], {"install": 1}])
def test_a_verb_that_is_none_is_named(verb):
    assert refusal(json.dumps({"verb": verb, "request": {}})) == f"there is no verb {verb!r}"
    assert "install" in served(json.dumps({"verb": verb}))[1][0]["hint"]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "\n",
        "no JSON",
        '{"verb": "install"',
        '{"verb": "install"}{}',
        "[" * 100_000,
        "1" * 5000,
        '"install"',
        "[1]",
        "null",
        "1",
    ],
    ids=lambda line: line[:20].strip() or "empty",
)
def test_a_first_line_that_is_no_call(line):
    assert refusal(line).startswith("the request is not ")


@pytest.mark.parametrize(
    ("further", "named"),
    [
        ({"ask": "yes"}, "ask: expected true or false, got 'yes'"),
        ({"wait": None}, "wait: expected true or false, got nothing"),
        ({"caller": "root"}, "unknown field 'caller'"),
        ({"title": "innocent"}, "unknown field 'title'"),
    ],
)
def test_a_call_has_no_further_fields(further, named):
    assert refusal(json.dumps({"verb": "confirm", "request": {}, **further})) == f"the request: {named}"


@pytest.mark.parametrize(
    ("verb", "value", "message"),
    [
        ("install", {"files": [{"fd": -1, "name": "x"}]}, "install: files[0]: -1 is not a file descriptor"),
        ("install", {"files": [{"fd": 2**31, "name": "x"}]}, f"{2**31} is not a file descriptor"),
        ("apply-live", {"live": {"confirm_within": 0}}, "confirm_within: expected a time above 0, got 0"),
        ("apply-live", {"live": {"confirm_within": -1}}, "confirm_within: expected a time above 0, got -1"),
        ("overlay-restore", {}, "overlay-restore: expected either a backup or a commit"),
        (
            "overlay-restore",
            {"commit": "a", "backup": {"fd": 0, "name": "x"}},
            "overlay-restore: expected either a backup or a commit",
        ),
        (
            "usroverlay",
            {"edits": [{"action": "add", "path": "/usr/x", "mode": 0o10000}]},
            "edits[0]: mode: expected 0 to 0o7777",
        ),
        (
            "usroverlay",
            {"edits": [{"action": "add", "path": "/usr/x", "owner": [-1, 0]}]},
            "edits[0]: owner: expected two numbers from 0 to 4294967294",
        ),
    ],
)
def test_values_that_cannot_be(verb, value, message):
    assert message in refusal(json.dumps({"verb": verb, "request": value}))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (1, "1"), (0, "0"), (1.0, "1.0"), (True, "true"), (False, "false"), (None, "nothing"),
        ([1, 2], "a list of 2"), ({}, "an object"), ("x" * 100, "'" + "x" * 56 + "..."),
    ],
)  # fmt: skip
def test_a_mistake_tells_what_was_there(value, told):
    kind = "upgrade" if isinstance(value, str) else "overlay-restore"
    field = "base" if isinstance(value, str) else "allow"
    message = refusal(json.dumps({"verb": kind, "request": {field: value if kind == "upgrade" else [value]}}))
    assert message.endswith(f"got {told}")


# --- round trips


@pytest.mark.parametrize("verb", KINDS)
def test_a_request_survives_the_wire(verb):
    @settings(max_examples=15)
    @given(request_cases.instances(KINDS[verb]))
    def survives(request):
        line = json.dumps(request.to_json())
        assert "\n" not in line
        assert read_request(verb, json.loads(line)) == request
        assert request.title
        assert len(request.title) <= 300

    survives()


@pytest.mark.parametrize("verb", KINDS)
def test_the_smallest_request_is_one(verb):
    value = request_cases.smallest(KINDS[verb])
    request = read_request(verb, value)
    assert isinstance(request, KINDS[verb])
    assert json.loads(json.dumps(request.to_json())).items() >= value.items()


def test_a_whole_number_is_a_time():
    assert read_request("apply-live", {"live": {"confirm_within": 5}}).live.confirm_within == 5.0


def test_anything_at_all_is_a_request_or_a_usage_error():
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    right = {verb: request_cases.smallest(kind) for verb, kind in KINDS.items()}
    accepted = 0
    for number in range(2000):
        verb = rng.choice([*VERBS, *request_cases.NAMES])
        value = request_cases.anything(rng)
        if isinstance(verb, str) and verb in VERBS and number % 2:
            full = read_request(verb, right[verb]).to_json()
            value = request_cases.spoiled(rng, full)
        try:
            request = read_request(verb, value)
        except UsageError:
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}: {verb!r} {value!r}") from error
        assert isinstance(request, KINDS[verb])
        accepted += 1
    assert accepted > 100, f"seed {seed}: the fuzzing makes hardly any request"


# --- files


def test_the_files_of_a_request_are_found_wherever_they_are():
    files = [OpenFile(number, f"/{number}") for number in range(3, 6)]
    assert Install(files=tuple(files), packages=("x",)).open_files == tuple(files)
    edits = tuple(PathEdit(action=EditAction.ADD, path="/usr/x", source=file) for file in files)
    assert EditOverlay(edits=(*edits, PathEdit(action=EditAction.DROP, path="/y"))).open_files == tuple(files)
    assert OverlayBackup(destination=files[0]).open_files == (files[0],)
    assert Rollback().open_files == ()


# --- titles

TITLES = [
    (ApplyLive(), "apply-live"),
    (ApplyLive(reset=True), "apply-live --reset"),
    (Approve(plan="0" * 20), "approve 00000000000000000000"),
    (BootloaderRollback(), "bootloader rollback"),
    (BootloaderUpdate(), "bootloader update"),
    (Cleanup(base=True), "cleanup"),
    (ComposeTree(treefile="x"), "compose-tree"),
    (ComposeCommit(treefile="x", rootfs="r"), "compose-commit"),
    (ComposeDisk(output="x"), "compose-disk"),
    (ComposeExtensions(treefile="x", extensions="e", output_dir="o"), "compose-extensions"),
    (ComposeImage(output="x"), "compose-image"),
    (ContainerCommit(shared=("/etc/x",)), "container commit"),
    (ContainerPrepare(), "container prepare"),
    (ComposeInstall(treefile="x", destdir="d"), "compose-install"),
    (ComposePostprocess(rootfs="r"), "compose-postprocess"),
    (ComposeRootfs(treefile="x", dest="d"), "compose-rootfs"),
    (ComposePublish(directory="d", repo="r"), "compose-publish"),
    (ComposeSign(repo="r", revs=("x",), keys=("k",)), "compose-sign"),
    (Confirm(), "confirm"),
    (Deploy(revision="13.2"), "deploy 13.2"),
    (Deploy(revision="13.2", deploy=DeployOptions(live=LiveOptions())), "deploy -A 13.2"),
    (Deploy(revision="13.2", install=("x",), uninstall=("y",)), "deploy 13.2 --install=x --uninstall=y"),
    (FinalizeDeployment(checksum="0" * 64), "finalize-deployment"),
    (Pin(deployments=("0", "rollback")), "pin 0 rollback"),
    (Unpin(deployments=("booted",)), "unpin booted"),
    (Initramfs(enable=True), "initramfs"),
    (InitramfsEtc(track=("/etc/fstab",)), "initramfs-etc"),
    (Kargs(changes=Changes(append=("quiet",))), "kargs"),
    (Override(remove=("a",), reset=("b", "c")), "override remove a reset b c"),
    (Override(replace=("a=1",), deploy=DeployOptions(live=LiveOptions())), "override -A replace a=1"),
    (Override(reset_all=True), "override reset --all"),
    (Rebase(refspec="vendor:a/b"), "rebase vendor:a/b"),
    (Reset(), "reset"),
    (Rebase(refspec="vendor:a/b", revision="13.2"), "rebase vendor:a/b 13.2"),
    (EditOverlay(), "usroverlay"),
    (EditOverlay(name="x", create=True), "usroverlay --name=x --create"),
    (EditOverlay(name="x", enable=False), "usroverlay --name=x --disable"),
    (EditOverlay(name="x", enable=True, remove=True), "usroverlay --name=x --remove --enable"),
    (
        EditOverlay(edits=(PathEdit(action=EditAction.REMOVE_FILE, path="/usr/x"),)),
        "usroverlay --remove-file=/usr/x",
    ),
    (Install(packages=("x",)), "install"),
    (Install(deploy=LIVE), "install -A"),
    (InstallToDisk(device="/dev/sdb"), "install-to-disk"),
    (InstallToExistingRoot(repo="r", ref="x"), "install-to-existing-root"),
    (OverlayBackup(), "usroverlay --backup"),
    (OverlayCheck(), "usroverlay --check"),
    (OverlayCleanup(), "usroverlay --cleanup"),
    (OverlayRestore(commit="abc"), "usroverlay --restore=abc"),
    (OverlayRestore(backup=OpenFile(3, "/b")), "usroverlay --restore=/b"),
    (Recover(), "recover"),
    (Recover(at=Moment.BOOT), "boot"),
    (Recover(at=Moment.SHUTDOWN), "recover"),
    (RefreshMd(), "refresh-md"),
    (Rollback(), "rollback"),
    (RollbackLive(), "rollback --live"),
    (Run(program="dpkg", arguments=("--add-architecture", "i386")), "run dpkg --add-architecture i386"),
    (Run(program="a b", deploy=LIVE, forget=True), "run -A --forget 'a b'"),
    (Uninstall(), "uninstall"),
    (Uninstall(deploy=LIVE), "uninstall -A"),
    (Unlock(), "usroverlay"),
    (UnlockDiscard(), "usroverlay --discard"),
    (UnlockSave(name="x"), "usroverlay --save=x"),
    (AutomaticUpdate(), "upgrade --trigger-automatic-update-policy"),
    (Upgrade(), "upgrade"),
    (Upgrade(deploy=LIVE), "upgrade -A"),
]


@pytest.mark.parametrize(("request_", "title"), TITLES, ids=lambda value: str(value)[:40])
def test_a_title_is_the_command_as_it_was_given(request_, title):
    assert request_.title == title


def test_every_verb_has_a_title_here():
    assert {request.verb for request, _title in TITLES} == set(VERBS)


@given(st.text(min_size=400, max_size=500))
@settings(max_examples=5)
def test_a_long_title_is_cut(name):
    assert len(EditOverlay(name=name).title) == 300
    assert len(OverlayRestore(commit=name).title) == 300
