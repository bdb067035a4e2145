"""`--verify-reproducible`: what the second build is given, and what becomes of two builds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from apt_ostree.core.compose import cache, inputs, tree, verifying
from apt_ostree.core.compose.committing import Job
from apt_ostree.core.compose.packages import Plan
from apt_ostree.core.compose.verifying import Again
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import AptOstreeError, ExternalFailure, Refused, UsageError
from apt_ostree.model import events, jsonvalue, layout, rootfs_record
from apt_ostree.model.account_ids import Ids
from apt_ostree.model.package import Package
from apt_ostree.model.requests.compose import ComposeInstall
from apt_ostree.model.treefile import Treefile
from apt_ostree.system import another_worker, dpkg_query, filestore, mmdebstrap, process
from apt_ostree.system.mmdebstrap import Bootstrap
from tests.unit import repos

TOOL = Package("tool", "1", "all")
FILES = {
    "usr/bin/tool": "tool",
    "usr/etc/tool.conf": "one\n",
    f"{layout.DPKG_ADMINDIR}/info/tool.list": "/.\n/usr/bin/tool\n/etc/tool.conf\n",
}


def transaction() -> tuple[Transaction, list[events.Event]]:
    told: list[events.Event] = []
    return Transaction(told.append, "compose-tree"), told


def job(place: Path) -> Job:
    return Job(Treefile(), "test/ref", place / "repo", timestamp=1700000000)


def roots(place: Path, **second: str) -> tuple[Path, Path]:
    """Make two root directories; the second one has files of its own, and what a step leaves."""
    found = place / "first/root", place / "second/rootfs"
    names = {name.replace("__", "/").replace("_conf", ".conf"): text for name, text in second.items()}
    for root, own in zip(found, ({}, {**names, rootfs_record.NAME: "record"}), strict=True):
        repos.write_files(root, {**FILES, **own})
    return found


# --- the comparison


def test_two_equal_builds_are_said_to_be_so(tmp_path):
    tx, told = transaction()
    first, second = roots(tmp_path)
    content = verifying.require_reproducible(tx, job(tmp_path), first, second)
    assert len(content) == 64
    assert any(content in event.text for event in told if isinstance(event, events.Message))
    assert (first / "usr/bin/tool").read_text() == "tool"  # it is committed afterwards


def test_what_differs_is_named_with_its_package_and_its_kind(tmp_path):
    first, second = roots(tmp_path, usr__etc__tool_conf="two\n", usr__random="7")
    (second / "usr/bin/tool").chmod(0o755)
    (first / "usr/bin/tool").chmod(0o700)
    (second / "usr/bin").chmod(0o700)
    (first / "usr/bin").chmod(0o755)
    with pytest.raises(Refused) as caught:
        verifying.require_reproducible(transaction()[0], job(tmp_path), first, second)
    found = {row["path"]: row for row in caught.value.reasons}
    assert {path: row["differs"] for path, row in found.items()} == {
        "/usr/bin": ["mode"],
        "/usr/bin/tool": ["mode"],
        "/usr/etc/tool.conf": ["content"],
        "/usr/random": ["absent"],
    }
    assert [found[path]["packages"] for path in ("/usr/bin/tool", "/usr/etc/tool.conf", "/usr/random")] == [
        *(["tool"], ["tool"], [])
    ]
    assert "tool:" in caught.value.details
    assert any("line 1: 'one' and 'two'" in line for line in caught.value.details)
    assert "test/ref" in caught.value.message
    assert caught.value.exit_code == 3


def test_the_root_directory_itself_is_compared(tmp_path):
    first, second = roots(tmp_path)
    first.chmod(0o755)
    second.chmod(0o700)
    with pytest.raises(Refused) as caught:
        verifying.require_reproducible(transaction()[0], job(tmp_path), first, second)
    assert [(row["path"], row["differs"]) for row in caught.value.reasons] == [("/", ["mode"])]


def test_what_a_commit_cannot_hold_is_refused_as_ever(tmp_path):
    first, second = roots(tmp_path)
    os.mkfifo(second / "usr/pipe")
    with pytest.raises(Refused, match="neither files nor directories"):
        verifying.require_reproducible(transaction()[0], job(tmp_path), first, second)


def test_a_path_that_is_diverted_is_that_of_its_package(tmp_path):
    database = tmp_path / layout.DPKG_ADMINDIR
    repos.write_files(
        database,
        {"info/linux.list": "/boot/vmlinuz-6\n/lib/x\n", "diversions": "/boot/vmlinuz-6\n/usr/lib/v\n:\n"},
    )
    assert dpkg_query.diversions(database)
    assert verifying._owners(tmp_path) == {"/usr/lib/v": {"linux"}, "/usr/lib/x": {"linux"}}


# --- the second build


@pytest.fixture
def again(tmp_path, monkeypatch) -> Again:
    """What is known of a first build, whose cache has package lists and an archive."""
    monkeypatch.setattr(mmdebstrap, "tools", lambda: ("apt 3.0",))
    monkeypatch.setattr(mmdebstrap, "native_architecture", lambda: "amd64")
    own = cache.Cache(filestore.open_store(tmp_path / "cache", apart_from={}))
    archive = tmp_path / "tool.deb"
    archive.write_text("archive")
    digest = repos_digest(archive)
    own.keep_archives([archive], {TOOL: (digest,)})
    repos.write_files(tmp_path / "lists", {"deb_InRelease": "Date: now\n"})
    plan = Plan(
        Bootstrap("trixie", "minbase", ("deb http://x/ trixie main",), ()),
        {TOOL: (digest,)},
        keys=(),
        sources=(),
        source_date=1,
        lists=tmp_path / "lists",
    )
    return Again(job(tmp_path), plan, Ids({"tool": 123}, {"tool": 124}), own)


def repos_digest(path: Path) -> str:
    from hashlib import sha256

    return sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def treefile(tmp_path) -> str:
    (tmp_path / "os.yaml").write_text("suite: trixie\nref: other\npackages: [tool]\n")
    return str(tmp_path / "os.yaml")


def test_the_second_build_has_the_inputs_of_the_first_and_no_more(tmp_path, monkeypatch, again, treefile):
    seen = {}

    def carry_out(verb, request, **how):
        seen.update(verb=verb, request=jsonvalue.read(ComposeInstall, request, name="x"), how=how)
        return {"rootfs": f"{request['destdir']}/rootfs", "packages": 1}

    monkeypatch.setattr(another_worker, "carry_out", carry_out)
    place = tmp_path / "verification"
    found = verifying.build_again(transaction()[0], treefile, again, place)
    request = seen["request"]
    assert found == Path(request.destdir) / "rootfs"
    assert Path(request.destdir).parent.is_dir() and not Path(request.destdir).exists()
    assert (seen["verb"], seen["how"]["source_date"]) == ("compose-install", 1700000000)
    assert request.cache_only and request.postprocess and request.lock_strictly
    known = inputs.load_treefile(Path(request.treefile))
    assert (known.ref, known.suite, known.packages) == ("test/ref", "trixie", ("tool",))
    (lockfile,) = request.lockfiles
    assert json.loads(Path(lockfile).read_text())["packages"] == {"tool": {"evra": "1.all"}}
    assert "u tool 123\n" in Path(request.ids).read_text()
    kinds = {path.name for path in Path(request.cachedir).iterdir()}
    assert kinds == {"CACHEDIR.TAG", "archives", "lists"}
    given = cache.Cache(filestore.open_store(Path(request.cachedir), apart_from={}))
    assert given.absent(again.plan.digests) == []
    (tmp_path / "restored").mkdir()
    given.restore_lists(again.plan.bootstrap, tmp_path / "restored")
    assert (tmp_path / "restored/deb_InRelease").read_text() == "Date: now\n"


def test_a_second_build_that_fails_says_why(tmp_path, monkeypatch, again, treefile):
    def carry_out(*_words, **_how):
        raise ExternalFailure("a script failed the second time")

    monkeypatch.setattr(another_worker, "carry_out", carry_out)
    with pytest.raises(ExternalFailure, match="the second time"):
        verifying.build_again(transaction()[0], treefile, again, tmp_path / "verification")


# --- another worker


def ended(monkeypatch, output: str, code: int = 0) -> dict:
    """Let a worker end with an output; return how it will have been started."""
    seen: dict = {}

    def run(argv, **how):
        seen.update(argv=argv, **how)
        return process.subprocess.CompletedProcess(argv, code, output, "it broke")

    monkeypatch.setattr(process, "run", run)
    return seen


def carry_out(place: Path) -> dict:
    return another_worker.carry_out("compose-install", {"a": 1}, what="try", place=place, source_date=7)


def test_another_worker_has_other_surroundings(tmp_path, monkeypatch):
    lines = [{"event": "message", "text": "x"}, {"event": "end", "ok": True, "result": {"rootfs": "/x"}}]
    seen = ended(monkeypatch, "".join(f"{json.dumps(line)}\n" for line in lines))
    assert carry_out(tmp_path) == {"rootfs": "/x"}
    assert json.loads(seen["stdin"]) == {"verb": "compose-install", "request": {"a": 1}, "ask": False}
    assert seen["env"]["SOURCE_DATE_EPOCH"] == "7"
    assert {"TZ", "LANG", "LC_ALL"} <= seen["env"].keys()
    assert seen["cwd"] == tmp_path
    assert any("umask" in word and "hostname" in word for word in seen["argv"])


@pytest.mark.parametrize("output", ["", '{"event": "message", "text": "x"}\n'])
def test_another_worker_that_ends_too_soon_is_a_failure(tmp_path, monkeypatch, output):
    ended(monkeypatch, output, code=1)
    with pytest.raises(ExternalFailure, match="cannot try") as caught:
        carry_out(tmp_path)
    assert caught.value.details == ("it broke",)


def test_the_error_of_another_worker_is_this_ones(tmp_path, monkeypatch):
    end = {"event": "end", "ok": False, **UsageError("no such file", hint="look").to_json()}
    ended(monkeypatch, json.dumps(end) + "\n", code=2)
    with pytest.raises(AptOstreeError, match="no such file") as caught:
        carry_out(tmp_path)
    assert (type(caught.value), caught.value.hint) == (UsageError, "look")


# --- the verb


def test_without_a_cache_there_is_one_for_the_time_of_the_compose(tmp_path):
    request = tree.ComposeTree(treefile="os.yaml", verify=True)
    with tree._cache(job(tmp_path), request) as found:
        assert found is not None
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(tree.WORK_PREFIX)]
    assert not list(tmp_path.iterdir())
    with tree._cache(job(tmp_path), tree.ComposeTree(treefile="os.yaml")) as found:
        assert found is None
