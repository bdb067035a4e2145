"""What scripts did to /etc: computed against the merge, and played once on what the merge has left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.core.boot import moments
from apt_ostree.core.build import etc
from apt_ostree.core.build.etc import EtcView
from apt_ostree.core.live import etc_planning
from apt_ostree.core.state import etc_deltas, etc_trees
from apt_ostree.errors import AptOstreeError
from apt_ostree.model import etc_delta, layout
from apt_ostree.model.deployment import Deployment, Deployments
from apt_ostree.model.etc_delta import Entry
from apt_ostree.model.etc_rules import EtcPlan, digest
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.origin import Origin
from apt_ostree.model.plan import EtcAction, EtcStep
from apt_ostree.model.requests.live import Moment, Recover
from apt_ostree.system import statedb
from apt_ostree.system.files import read_state
from tests.unit import repos
from tests.unit.repos import System, write_files


def file(text: str, mode: int = 0o644) -> FileState:
    return FileState("file", mode, repos.ME[0], repos.ME[1], text.encode())


ONE, TWO, MINE = file("1"), file("2"), file("mine")
LINK = FileState("symlink", 0o777, content=b"target")
STATES = st.sampled_from([ABSENT, ONE, TWO, MINE, LINK])
PATHS = st.sampled_from(["a", "b", "dir/c"])
TREES = st.fixed_dictionaries(dict.fromkeys(("a", "b", "dir/c"), STATES))
EMPTY = dict.fromkeys(("a", "b", "dir/c"), ABSENT)


# --- the rules


@given(TREES, TREES, TREES, TREES)
def test_played_on_the_merge_it_gives_what_the_scripts_left(merge, seen, after, shipped):
    delta = etc_delta.compute(merge, seen, after, shipped, EMPTY)
    writes, kept = etc_delta.play(delta, {path: merge[path] for path in delta})
    gone = {p for p in after if merge[p] == ABSENT and shipped[p].type == after[p].type == "file"}
    same = {p for p in gone if shipped[p].content == after[p].content}
    assert {**merge, **writes} == {**after, **dict.fromkeys(same, ABSENT)}
    assert kept == ()


def test_a_file_that_is_no_longer_shipped_goes_although_a_script_changed_its_mode():
    path = "init.d/fx"
    seen, after = (FileState("file", mode, content=b"init script") for mode in (0o755, 0o644))
    delta = etc_delta.compute({path: ABSENT}, {path: seen}, {path: after}, {path: seen}, {path: ABSENT})
    assert etc_delta.play(delta, {path: ABSENT}) == ({}, ())
    assert etc_delta.play(delta, {path: seen}) == ({path: ABSENT}, ())  # live
    kept = etc_delta.compute({path: seen}, {path: seen}, {path: after}, {path: seen}, {path: seen})
    assert kept[path].after == after


def test_what_scripts_made_for_a_pending_deployment_is_not_lost_when_it_is_live():
    key = file("secret", 0o600)
    delta = etc_delta.compute({"key": ABSENT}, {"key": key}, {"key": key}, {"key": ABSENT}, {"key": ABSENT})
    assert delta["key"].after == key


def test_a_live_change_takes_back_what_the_scripts_of_an_earlier_one_made():
    """The merge has it gone, because the shutdown takes live changes back."""
    gone = {"made": ABSENT}
    delta = etc_delta.compute(gone, {"made": ONE}, gone, gone, gone)
    assert etc_delta.play(delta, {"made": ONE}) == (gone, ())
    assert etc_delta.play(delta, gone) == ({}, ())
    conffile = {"made": TWO}
    assert etc_delta.compute(conffile, {"made": ONE}, conffile, {"made": ONE}, conffile) == {}


@given(TREES, TREES, TREES)
def test_playing_it_again_changes_nothing(merge, seen, after):
    delta = etc_delta.compute(merge, seen, after, EMPTY, EMPTY)
    assert etc_delta.play(delta, {path: after[path] for path in delta}) == ({}, ())


@given(TREES, TREES)
def test_what_somebody_changed_meanwhile_stays(merge, after):
    delta = etc_delta.compute(merge, merge, after, EMPTY, EMPTY)
    other = file("of the administrator")
    writes, kept = etc_delta.play(delta, dict.fromkeys(delta, other))
    assert (writes, set(kept)) == ({}, set(delta))


@given(TREES, TREES, TREES)
def test_it_is_read_as_it_was_written(merge, seen, after):
    delta = etc_delta.compute(merge, seen, after, EMPTY, EMPTY)
    assert etc_delta.parse(etc_delta.format_delta(delta)) == delta


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": ["x", "y", ["file"]]}'])
def test_a_text_with_an_error(text: str):
    with pytest.raises(AptOstreeError, match="cannot be read"):
        etc_delta.parse(text)


def test_accounts_and_scratch_files_are_left_out():
    left_out = ["passwd", "shadow-", "subuid-", "hostname", "ld.so.cache", "x.dpkg-new"]
    after = dict.fromkeys([*left_out, "subuid", "kept"], ONE)
    merge = dict.fromkeys(after, ABSENT)
    assert set(etc_delta.compute(merge, merge, after, merge, merge)) == {"kept", "subuid"}


def test_what_was_removed_is_not_made_again_and_removals_come_last():
    delta = {path: Entry(digest(ABSENT), digest(ABSENT), ONE) for path in ("dir", "dir/x")}
    delta |= {path: Entry(digest(ONE), digest(ONE), ABSENT) for path in ("old", "old/x")}
    current = {"dir": ABSENT, "dir/x": ABSENT, "old": ONE, "old/x": ONE}
    assert list(etc_delta.play(delta, current)[0]) == ["dir", "dir/x", "old/x", "old"]
    assert "dir/x" not in etc_delta.play(delta, current, {"dir/x"})[0]


# --- in a live change


def test_a_live_change_plans_what_scripts_did(system: System):
    write_files(system.etc, {"edited": "mine"})
    delta = {
        "key": Entry(digest(ABSENT), digest(ABSENT), ONE),
        "edited": Entry(digest(ONE), digest(ONE), TWO),
        "shipped": Entry(digest(ONE), digest(ABSENT), TWO),
    }
    plan = EtcPlan((), {"shipped": ONE}, {"shipped": ABSENT})
    whole = etc_planning.with_delta(plan, delta)
    actions = {step.path: step.action for step in whole.steps}
    written = {"key": ONE, "shipped": TWO, "edited.dpkg-dist": TWO}
    assert actions == {**dict.fromkeys(written, EtcAction.WRITE), "edited": EtcAction.KEEP}
    assert whole.states == written
    assert whole.seen == dict.fromkeys(written, ABSENT)
    assert etc_planning.with_delta(plan, {}) is plan


def test_a_directory_in_which_a_script_left_something_stays(system: System):
    write_files(system.etc, {"ut2/conf.d/made": "1", "ut2/conf.d/shipped": "2"})
    paths = ("ut2/conf.d/shipped", "ut2/conf.d", "ut2")
    seen = {path: read_state(system.etc / path) for path in paths}
    steps = tuple(EtcStep(path, EtcAction.REMOVE, "") for path in paths)
    plan = EtcPlan(steps, dict.fromkeys(paths, ABSENT), seen)
    assert etc_planning.with_delta(plan, {}).changed == ("ut2/conf.d/shipped",)
    made = digest(read_state(system.etc / "ut2/conf.d/made"))
    delta = {"ut2/conf.d/made": Entry(made, made, ABSENT)}
    assert set(etc_planning.with_delta(plan, delta).changed) == {*paths, "ut2/conf.d/made"}


# --- at the end of a boot, or at the begin of the next one


def staged(system: System, delta: dict[str, Entry]) -> None:
    with system.transaction():
        etc_deltas.write(system.one, delta)
        etc_deltas.set_due(system.one)


def test_it_is_played_once_at_boot_if_nobody_did_before(system: System):
    write_files(system.etc, {"edited": "mine"})
    staged(system, {
        "key": Entry(digest(ABSENT), "", file("secret", 0o600)),
        "edited": Entry(digest(ONE), "", TWO),
    })  # fmt: skip
    assert system.run(moments.recover, Recover(at=Moment.STATE)).changed
    assert (system.etc / "key").read_text() == "secret"
    assert (system.etc / "key").stat().st_mode & 0o777 == 0o600
    assert (system.etc / "edited").read_text() == "mine"
    assert (system.etc / "edited.dpkg-dist").read_text() == "2"
    assert "/etc/edited.dpkg-dist has what the packages' scripts made" in system.told("warning")[0]
    assert (statedb.DIRECTORY / layout.ETC_BESIDE).read_text() == "edited.dpkg-dist\n"
    (system.etc / "key").unlink()
    system.run(moments.recover, Recover(at=Moment.STATE))
    assert not (system.etc / "key").exists()  # the administrator removed it


def test_another_deployment_is_left_alone(system: System):
    with system.transaction():
        etc_deltas.write(system.two, {"key": Entry(digest(ABSENT), "", ONE)})
        etc_deltas.set_due(system.two)
    system.run(moments.recover, Recover(at=Moment.STATE))
    assert not (system.etc / "key").exists()


def deployments(*commits: str, booted: int) -> Deployments:
    """Return deployments of these commits, of which one is booted."""
    rows = enumerate(commits)
    return Deployments(
        tuple(Deployment(i, "debian", c, i, "", Origin(), i == booted, False, False, "none") for i, c in rows)
    )


def test_deltas_go_with_their_deployments(system: System):
    for commit in (system.one, system.two):
        etc_deltas.write(commit, {"key": Entry(digest(ABSENT), "", ONE)})
        etc_deltas.set_due(commit)
    etc_deltas.drop_others(deployments(system.two, system.one, booted=1))
    assert etc_deltas.due() == {system.two}
    etc_deltas.write(system.one, {"key": Entry(digest(ABSENT), "", ONE)})
    etc_deltas.set_due(system.one, system.two)  # one is staged in place of the other
    assert etc_deltas.due() == {system.one, system.two}
    etc_deltas.drop_others(deployments(system.one, system.one, booted=1))
    assert etc_deltas.due() == {system.one}
    assert etc_deltas.read(system.one) and not etc_deltas.read(system.two)
    etc_deltas.write(system.one, {})
    etc_deltas.set_due(system.one)
    assert etc_deltas.due() == {system.one}  # there may be directories to complete


def test_the_delta_of_a_staged_deployment_goes_with_it_although_another_has_its_commit(system: System):
    etc_deltas.write(system.one, {"key": Entry(digest(ABSENT), "", ONE)})
    etc_deltas.write(system.two, {"key": Entry(digest(ABSENT), "", ONE)})
    etc_deltas.set_due(system.one)
    etc_deltas.drop_others(deployments(system.one, system.two, booted=0))
    assert not etc_deltas.due() and not etc_deltas.read(system.one)
    assert etc_deltas.read(system.two)


def test_the_delta_of_a_removal_is_over_when_another_deployment_is_staged(system: System):
    """Removing the last package stages the booted commit again."""
    etc_deltas.write(system.one, {"key": Entry(digest(ABSENT), "", ONE)})
    etc_deltas.set_due(system.one)
    etc_deltas.drop_others(deployments(system.one, system.one, booted=1))
    assert etc_deltas.read(system.one)
    etc_deltas.set_due(system.two)
    etc_deltas.drop_others(deployments(system.two, system.one, booted=1))
    assert not etc_deltas.read(system.one) and etc_deltas.due() == {system.two}


# --- of a build


def test_what_scripts_did_is_what_the_merge_does_not_do(system: System, tmp_path: Path):
    """The tree that was built ships one file; the scripts made a key, edited one file and removed another."""
    built = repos.write_commit(system.repo, {**repos.ONE, "usr/etc/new.conf": "new"}, ref="built")
    upper = tmp_path / "upper"
    write_files(upper, {"new.conf": "new", "key": "secret", "main.conf": "of a script", "passwd": "x"})
    with system.transaction() as tx:
        delta = etc.delta_of(tx, EtcView({}, {}, frozenset()), upper, system.one, built)
    changed = {path: entry.after.content for path, entry in delta.items()}
    assert changed["key"] == b"secret"
    assert "new.conf" not in changed and "passwd" not in changed


def test_the_view_of_the_running_tree_is_the_running_etc(system: System):
    with system.transaction() as tx:
        assert etc.view(tx, system.one, {}) == EtcView({}, {}, frozenset())
        other = etc.view(tx, system.two, {})
    assert other.states  # another tree ships other files


def test_a_directory_that_goes_hides_nothing_of_the_administrators(system: System):
    files = {"usr/etc/ut/tool.conf": "one\n", "usr/etc/gone/a.conf": "a", "usr/etc/gone/sub/b.conf": "b"}
    with_it = repos.write_commit(system.repo, {**repos.ONE, **files}, ref="one")
    without = repos.write_commit(system.repo, repos.ONE, ref="without")
    write_files(system.etc, {"gone/a.conf": "a", "gone/sub/b.conf": "mine"})
    with system.transaction() as tx:
        tx.__dict__["live"] = replace(tx.live, booted=replace(tx.live.booted, checksum=with_it))
        assert set(etc.view(tx, without, {}).states) == {"gone/a.conf"}
        write_files(system.etc, {"gone/sub/b.conf": "b"})
        assert set(etc.view(tx, without, {}).states) == {"gone", "gone/a.conf", "gone/sub", "gone/sub/b.conf"}


# --- directories


def test_directories_keep_the_modes_that_somebody_gave_them(tmp_path: Path):
    """Each is (old tree's, new tree's, machine's, merged) -> what it is afterwards."""
    modes = {
        "mine": (0o755, 0o755, 0o750, 0o755, 0o750),
        "shipped-anew": (0o755, 0o711, 0o755, 0o711, 0o711),
        "both": (0o755, 0o711, 0o750, 0o711, 0o750),
        "played": (0o755, 0o755, 0o750, 0o700, 0o700),  # of the scripts for the new one
        "deep/er": (0o755, 0o755, 0o1777, 0o755, 0o1777),
    }
    old, new = tmp_path / "old", tmp_path / "new"
    for name, row in modes.items():
        for top, mode in zip((old / "usr/etc", new / "usr/etc", old / "etc", new / "etc"), row, strict=False):
            (top / name).mkdir(parents=True)
            (top / name).chmod(mode)
    (old / "etc/own").mkdir(mode=0o700)
    (old / "etc/link").symlink_to("mine")
    etc_trees.keep_directories(old, new / "usr/etc", new / "etc")
    for name, row in modes.items():
        assert (new / "etc" / name).stat().st_mode & 0o7777 == row[4], name
    assert not (new / "etc/own").exists()  # ostree copies what is not of a tree
