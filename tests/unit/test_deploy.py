"""Package verbs and the one way to a deployment: built, planned, staged, made live; or all of it back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from apt_ostree.core import deploy, initramfs, override, packages, queries, rebase, status
from apt_ostree.core.build import layering
from apt_ostree.core.build.layering import Built, Label, Sources
from apt_ostree.core.build.work import OwnInitramfs
from apt_ostree.core.deploy import Recipe, Target
from apt_ostree.core.state import etc_deltas, opt
from apt_ostree.errors import Cancelled, ExternalFailure, Refused, UsageError
from apt_ostree.model import layout
from apt_ostree.model.etc_delta import Entry
from apt_ostree.model.etc_rules import digest
from apt_ostree.model.events import PlanShown
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.newer import Newer
from apt_ostree.model.origin import LocalPackage, Origin
from apt_ostree.model.package import Package
from apt_ostree.model.package_plan import PackagePlan, Step
from apt_ostree.model.queries import Status as StatusQuery
from apt_ostree.model.requests.deployments import InitramfsEtc, Rebase
from apt_ostree.model.requests.options import DeployOptions, LiveOptions
from apt_ostree.model.requests.packages import Install, Override, Reset, Uninstall, Upgrade
from apt_ostree.system import local_debs, newer_versions, openfiles
from apt_ostree.system.apt.resolver import PackageGoal
from tests.unit import repos
from tests.unit.repos import System

PLAN = PackagePlan(install=(Step("extra", "all", new="1", reason="requested"),))
LIVE = DeployOptions(live=LiveOptions(allow_replacement=True))
DRY = DeployOptions(dry_run=True)
#: What the scripts of dropped packages do to /etc.
REMOVED = {"alternatives/extra": Entry("x", "x", ABSENT)}


@dataclass
class Builder:
    """Stands for the build of a commit, which needs apt and mounts: it gives the next commit of a list."""

    commits: list[str | None]
    opened: list[tuple[str, Sources]] = field(default_factory=list)
    wanted: list[tuple[PackageGoal, Label]] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    newer: tuple[Newer, ...] = ()
    taken: tuple[Newer, ...] = ()
    options: list[dict[str, bool]] = field(default_factory=list)
    before: list[Any] = field(default_factory=list)
    removals: list[PackageGoal] = field(default_factory=list)

    @contextmanager
    def open(self, tx: Any, start: str, sources: Sources, *, before: Any = None) -> Iterator[Any]:
        self.opened.append((start, sources))
        self.before.append(before)

        class Session:
            exact = tuple(p.label for p in sources.local)
            kept = self.kept

        Session.tx = tx  # type: ignore[attr-defined]
        yield Session

    def install(self, session: Any, wanted: PackageGoal, label: Label, **options: bool) -> Built:
        self.wanted.append((wanted, label))
        self.options.append(options)
        commit = self.commits.pop(0)
        if commit is None:
            return Built(PackagePlan(newer=self.newer, taken=self.taken))
        shown = PlanShown("transaction", PLAN.to_json())
        if options["ask"] and not options["dry_run"]:
            session.tx.confirm(shown, commits=[label.base])
        else:
            session.tx.report(shown)
        return Built(PLAN, None if options["dry_run"] or options["download_only"] else commit)

    def run_removal(self, _session: Any, goal: PackageGoal, _base: str) -> Any:
        self.removals.append(goal)
        return REMOVED


@pytest.fixture
def builder(system: System, monkeypatch) -> Builder:
    found = Builder([])
    monkeypatch.setattr(layering, "opened", found.open)
    monkeypatch.setattr(layering, "install", found.install)
    monkeypatch.setattr(layering, "run_removal", found.run_removal)
    return found


@pytest.fixture
def layered(system: System) -> str:
    """A commit with packages on top of the first."""
    return _with_base(system, system.one)


def _with_base(system: System, base: str, *, file: str = "extra", packages: str = "two") -> str:
    tree = {**repos.ONE, f"usr/bin/{file}": "x"}
    words = {layout.META_BASE.replace("-", "_"): base}
    return repos.write_commit(
        system.repo, tree, ref=f"layered-{file}", packages=repos.PACKAGES[packages], **words
    )


def stage(system: System, commit: str, origin: Origin) -> None:
    with system.open() as machine:
        machine.stage(commit, origin, machine.deployments().all[0])


def origins(system: System) -> list[tuple[str, ...]]:
    with system.open(writable=False) as machine:
        return [d.origin.requested for d in machine.deployments().all]


# --- deploy


def target(system: System, commit: str, *requested: str) -> Target:
    return Target(Origin("one", requested), commit)


def test_another_commit_is_staged(system: System):
    with system.transaction() as tx:
        result = deploy.deploy(tx, target(system, system.two), DeployOptions())
    assert (result.changed, result.next_boot, result.live) == (True, True, None)
    assert result.details["staged"]
    assert system.order() == [system.two, system.one]
    assert [p["name"] for p in result.details["packages"]["added"]] == ["extra"]


@pytest.mark.parametrize("options", [DeployOptions(), DRY, LIVE])
def test_what_is_in_opt_stays(system: System, tmp_path, monkeypatch, options):
    monkeypatch.setattr(opt, "PLACE", tmp_path)
    commit = repos.write_commit(system.repo, {**repos.ONE, "usr/lib/opt/fx/data": "x"}, ref="opt")
    (tmp_path / "fx").mkdir()
    with system.transaction() as tx, pytest.raises(Refused) as caught:
        deploy.deploy(tx, target(system, commit), options)
    assert "/opt/fx" in repos.refused(caught.value)
    assert system.order() == [system.one]
    assert list((tmp_path / "fx").iterdir()) == []


def test_the_same_again_is_no_change(system: System):
    with system.transaction() as tx:
        result = deploy.deploy(tx, target(system, system.one), DeployOptions())
    assert (result.changed, result.next_boot) == (False, False)
    assert system.told() == ["No change."]
    assert system.order() == [system.one]


@pytest.mark.parametrize("how", [{"commit": "two"}, {"requested": ("x",)}, {"kernel_arguments": ("quiet",)}])
def test_a_commit_an_origin_or_kernel_arguments_make_a_deployment(system: System, how):
    with system.transaction() as tx:
        commit = system.two if "commit" in how else system.one
        wanted = Target(Origin("one", how.get("requested", ())), commit, None, how.get("kernel_arguments"))
        assert deploy.deploy(tx, wanted, DeployOptions()).changed
        assert len(tx.deployments.all) == 2
        assert deploy.deploy(tx, wanted, DeployOptions()).changed is False


def test_a_dry_run_stages_nothing(system: System):
    with system.transaction() as tx:
        result = deploy.deploy(tx, target(system, system.two), DRY)
    assert (result.changed, result.next_boot) == (True, False)
    assert system.order() == [system.one]
    assert system.plans("packages") == [result.details["packages"]]


def test_live_at_once_and_with_the_next_boot(system: System):
    with system.transaction() as tx:
        result = deploy.deploy(tx, target(system, system.two), LIVE)
    assert (result.changed, result.live, result.next_boot) == (True, True, True)
    assert system.order() == [system.two, system.one]
    assert system.kernel.sources() == ["apt-ostree:1"]
    assert not system.repo.refs("apt-ostree/previous")


def test_a_change_that_is_refused_leaves_no_deployment(system: System):
    with system.transaction() as tx, pytest.raises(Refused):
        deploy.deploy(tx, target(system, system.two), DeployOptions(live=LiveOptions()))
    assert system.order() == [system.one]
    assert system.kernel.usr == []


@pytest.mark.parametrize("point", ["stage.before", "stage.after", "verify.packages"])
@pytest.mark.parametrize("pending", [False, True])
def test_a_failure_takes_the_deployment_back_too(system: System, monkeypatch, point, pending):
    third = repos.write_commit(system.repo, {**repos.TWO, "usr/bin/third": "3"}, ref="three")
    if pending:
        stage(system, third, Origin("three"))
    repos.fail_at(monkeypatch, point)
    before = system.order()
    with system.transaction() as tx, pytest.raises(ExternalFailure):
        deploy.deploy(tx, target(system, system.two), LIVE)
    assert system.order() == before
    assert system.kernel.usr == []
    assert (system.etc / "ut/tool.conf").read_text() == "one\n"
    assert not system.repo.refs("apt-ostree/previous")


def test_a_dry_live_run_plans_and_leaves_nothing(system: System):
    options = DeployOptions(dry_run=True, live=LIVE.live)
    with system.transaction() as tx:
        result = deploy.deploy(tx, target(system, system.two), options)
    assert (result.changed, result.live, result.details["commit"]) == (True, False, None)
    assert len(system.plans()) == 1
    assert system.order() == [system.one]


def test_what_is_pending_already_is_made_live_alone(system: System):
    stage(system, system.two, Origin("one"))
    with system.transaction() as tx:
        result = deploy.deploy(tx, target(system, system.two), LIVE)
    assert (result.live, result.next_boot) == (True, False)
    assert system.order() == [system.two, system.one]
    with system.transaction() as tx:
        assert deploy.deploy(tx, target(system, system.two), LIVE).changed is False


# --- with packages


def test_what_is_built_is_staged(system: System, builder: Builder, layered):
    builder.commits = [layered]
    recipe = Recipe(system.one, ("extra",), upgrade=True, keep=(("base", "1"),))
    wanted = Target(Origin("one", ("extra",)), system.one, recipe)
    with system.transaction() as tx:
        result = deploy.deploy(tx, wanted, DeployOptions(cache_only=True))
    assert (result.changed, result.details["commit"]) == (True, layered)
    assert result.details["transaction"]["install"][0]["name"] == "extra"
    assert system.order() == [layered, system.one]
    ((start, sources),) = builder.opened
    assert (start, sources.upgrade, sources.cache_only) == (system.one, True, True)
    ((resolved, label),) = builder.wanted
    assert (resolved.install, resolved.upgrade, resolved.keep) == (("extra",), True, {"base": "1"})
    assert label.base == system.one


def test_nothing_to_install_is_a_result(system: System, builder: Builder):
    builder.commits = [None]
    recipe = Recipe(system.one, upgrade=True)
    with system.transaction() as tx:
        result = deploy.deploy(tx, Target(Origin("one"), system.one, recipe), DeployOptions())
    assert result.changed is False
    assert system.order() == [system.one]


@pytest.mark.parametrize("recipe", [True, False])
def test_a_request_that_builds_nothing_keeps_what_scripts_did_to_etc(
    system: System, builder: Builder, layered, recipe
):
    delta = {"key": Entry(digest(ABSENT), "", FileState("file", 0o600, content=b"secret"))}
    stage(system, layered, Origin("one", ("extra",)))
    etc_deltas.write(layered, delta)
    etc_deltas.set_due(layered)
    builder.commits = [None]
    with system.transaction() as tx:
        how = Recipe(system.one, ("also",)) if recipe else None
        result = deploy.deploy(tx, Target(Origin("one", ("extra", "also")), layered, how), DeployOptions())
    assert result.changed
    assert etc_deltas.read(layered) == delta
    assert etc_deltas.due() == {layered}


def test_staging_that_is_killed_leaves_both_deltas_due(system: System, layered, monkeypatch):
    for commit in (layered, system.two):
        etc_deltas.write(commit, {"key": Entry(digest(ABSENT), "", FileState("file"))})
    stage(system, layered, Origin("one", ("extra",)))
    due = []
    real = repos.Machine.stage

    def observed(machine: Any, *arguments: Any, **options: Any) -> None:
        due.append(etc_deltas.due())
        real(machine, *arguments, **options)

    monkeypatch.setattr(repos.Machine, "stage", observed)
    with system.transaction() as tx:
        deploy.deploy(tx, Target(Origin("two"), system.two), DeployOptions())
    assert due == [{layered, system.two}]
    assert etc_deltas.due() == {system.two}


def test_an_upgrade_of_the_bases_packages_is_written_into_the_origin(system: System, builder: Builder):
    builder.commits = [_with_base(system, system.one)]
    with system.transaction() as tx:
        deploy.deploy(
            tx, Target(Origin("one"), system.one, Recipe(system.one, upgrade=True)), DeployOptions()
        )
        assert tx.deployments.all[0].origin.upgraded
        assert tx.deployments.all[0].origin.layered


@pytest.mark.parametrize("options", [DRY, DeployOptions(download_only=True)])
def test_what_is_not_built_is_foreseen(system: System, builder: Builder, layered, options):
    builder.commits = [layered]
    with system.transaction() as tx:
        result = deploy.deploy(
            tx, Target(Origin("one", ("extra",)), system.one, Recipe(system.one, ("extra",))), options
        )
    assert (result.changed, result.next_boot, result.details["commit"]) == (True, False, None)
    assert "packages" not in result.details
    assert system.order() == [system.one]


def test_a_no_to_the_packages_ends_it(system: System, builder: Builder, layered):
    builder.commits = [layered]
    wanted = Target(Origin("one", ("extra",)), system.one, Recipe(system.one, ("extra",)))
    with system.transaction(ask=lambda: False) as tx, pytest.raises(Cancelled):
        deploy.deploy(tx, wanted, LIVE)
    assert system.order() == [system.one]


def test_a_user_is_asked_once(system: System, builder: Builder, layered):
    builder.commits = [layered]
    asked: list[int] = []
    wanted = Target(Origin("one", ("extra",)), system.one, Recipe(system.one, ("extra",)))
    with system.transaction(ask=lambda: asked.append(1) or True) as tx:  # type: ignore[func-returns-value]
        assert deploy.deploy(tx, wanted, LIVE).live
    assert len(asked) == 1
    assert [plan.confirm for plan in system.events if isinstance(plan, PlanShown)] == [True, False]


# --- the verbs' targets


def run(system: System, verb: Any, request: Any) -> Any:
    return system.run(verb, request)


def test_install_adds_to_what_is_there(system: System, builder: Builder, layered):
    builder.commits = [layered, _with_base(system, system.one, file="more")]
    run(system, packages.install, Install(packages=("extra",)))
    run(system, packages.install, Install(packages=("more=2",)))
    assert origins(system)[0] == ("extra", "more=2")
    assert [start for start, _sources in builder.opened] == [system.one, layered]
    assert [wanted.install for wanted, _label in builder.wanted] == [("extra",), ("more=2",)]
    assert [label.base for _wanted, label in builder.wanted] == [system.one, system.one]


@pytest.mark.parametrize(("recommends", "chosen"), [(None, ()), (False, (("more", False),))])
def test_recommended_packages_are_decided_for_later_builds_too(
    system: System, builder: Builder, layered, recommends, chosen
):
    stage(system, layered, Origin("one", ("extra",), recommends=(("extra", True),)))
    builder.commits = [_with_base(system, system.one, file="a"), _with_base(system, system.two, file="b")]
    run(system, packages.install, Install(packages=("more",), recommends=recommends))
    system.repo.set_ref("one", system.two)
    run(system, packages.upgrade, Upgrade(packages=False))
    assert [sources.recommends for _start, sources in builder.opened] == [recommends, recommends]
    assert [goal.recommends for goal, _label in builder.wanted] == 2 * [{"extra": True, **dict(chosen)}]


@pytest.mark.parametrize(
    ("verb", "request_"),
    [
        (packages.uninstall, Uninstall(packages=("extra",), install=("more",), recommends=False)),
        (packages.upgrade, Upgrade(base=False, install=("more",), uninstall=("extra",), recommends=False)),
        (override.override, Override(remove=("base",), install=("more",), recommends=False)),
        (override.reset, Reset(layers=True, install=("more",), recommends=False)),
        (rebase.rebase, Rebase(refspec=":two", install=("more",), uninstall=("extra",), recommends=False)),
    ],
)
def test_what_is_recommended_is_decided_with_other_changes(
    system: System, builder: Builder, layered, verb: Any, request_: Any
):
    stage(system, layered, Origin("one", ("extra",), recommends=(("extra", True),)))
    builder.commits = [_with_base(system, system.one, file="more")]
    run(system, verb, request_)
    with system.open(writable=False) as machine:
        chosen = dict(machine.deployments().all[0].origin.recommends)
    keeps = isinstance(request_, Override)
    assert chosen == {"more": False} | ({"extra": True} if keeps else {})
    assert builder.wanted[-1][0].recommends == chosen


def test_what_the_base_has_needs_no_request(system: System, builder: Builder, layered):
    with pytest.raises(UsageError, match="already part of the base"):
        run(system, packages.install, Install(packages=("tool",)))
    assert not run(system, packages.install, Install(packages=("tool",), idempotent=True)).changed
    builder.commits = [layered]
    run(system, packages.install, Install(packages=("tool",), allow_inactive=True))
    assert origins(system)[0] == ("tool",)


def test_what_is_requested_already_is_a_mistake(system: System, builder: Builder, layered):
    stage(system, layered, Origin("one", ("extra",)))
    with pytest.raises(UsageError, match="already requested"):
        run(system, packages.install, Install(packages=("extra",)))
    assert not run(system, packages.install, Install(packages=("extra",), idempotent=True)).changed
    assert builder.opened == []


def test_uninstall_removes_from_the_present_tree(system: System, builder: Builder, layered):
    stage(system, layered, Origin("one", ("extra", "more")))
    builder.commits = [_with_base(system, system.one, file="more")]
    run(system, packages.uninstall, Uninstall(packages=("extra",)))
    assert origins(system)[0] == ("more",)
    ((start, sources),) = builder.opened
    ((wanted, label),) = builder.wanted
    assert (start, label.base, wanted.install) == (layered, system.one, ())
    assert (wanted.drop, wanted.needed) == (("extra",), {p.name for p in repos.PACKAGES["one"]} | {"more"})
    assert sources.cache_only  # nothing is needed from the archives


@pytest.mark.parametrize(("dropped", "absent"), [("tool", ""), ("extra", "base")])
def test_packages_of_the_base_come_back_from_the_base(system: System, builder: Builder, dropped, absent):
    """Dropped is a newer version of a base package, or a kernel that has superseded the base's."""
    versions = {"base": "1", "extra": "1", "tool": "3"}
    replaced = [Package(name, version, "all") for name, version in versions.items() if name != absent]
    tree, metadata = {**repos.ONE, "usr/bin/extra": "x"}, {layout.META_BASE.replace("-", "_"): system.one}
    present = repos.write_commit(system.repo, tree, ref="kernel", packages=replaced, **metadata)
    stage(system, present, Origin("one", (dropped, "more")))
    builder.commits = [_with_base(system, system.one, file="more")]
    run(system, packages.uninstall, Uninstall(packages=(dropped,)))
    assert [goal.drop for goal in builder.removals] == ([("extra",)] if dropped == "extra" else [])
    assert builder.opened[-1][0] == system.one
    assert builder.wanted[0][0].install == ("more",)
    kept = {"extra": "1"} if dropped == "tool" else {"extra": "1", "tool": "3"}
    assert builder.wanted[0][0].keep == kept  # a rebuild upgrades nothing


# --- overrides of the base


def change(system: System, **options: Any) -> Any:
    return run(system, override.override, Override(**options))


def removed(system: System) -> tuple[str, ...]:
    with system.open(writable=False) as machine:
        return machine.deployments().all[0].origin.removed


def _without_tool(system: System, base: str) -> str:
    words = {layout.META_BASE.replace("-", "_"): base}
    return repos.write_commit(
        system.repo,
        repos.KERNEL | {"usr/etc/x": ""},
        ref="without",
        packages=repos.PACKAGES["one"][:1],
        **words,
    )


def test_packages_of_the_base_are_removed_and_come_back(system: System, builder: Builder):
    commit = _without_tool(system, system.one)
    builder.commits = [commit]
    change(system, remove=("tool",), install=("extra",))
    ((start, _sources),) = builder.opened
    goal = builder.wanted[0][0]
    assert (start, goal.remove, goal.install, goal.drop) == (system.one, ("tool",), ("extra",), ())
    assert (removed(system), origins(system)[0]) == (("tool",), ("extra",))
    entry = status.status(StatusQuery()).to_json()["deployments"][0]
    assert (entry["requested-base-removals"], entry["base-removals"]) == (
        ["tool"],
        [{"name": "tool", "version": "1.0", "architecture": "amd64"}],
    )

    builder.commits = [_with_base(system, system.one, file="again")]
    change(system, reset=("tool",))
    assert builder.opened[1][0] == system.one  # from the base, which has it
    assert (removed(system), builder.wanted[1][0].remove) == ((), ())


def test_what_is_removed_from_the_base_is_no_package_to_install(system: System, builder: Builder):
    stage(system, _without_tool(system, system.one), Origin("one", removed=("tool",)))
    with pytest.raises(UsageError, match="tool is removed from the base") as caught:
        run(system, packages.install, Install(packages=("tool=2.0",)))
    assert "override reset tool" in str(caught.value.hint)


def test_a_removal_goes_along_to_a_newer_base(system: System, builder: Builder):
    stage(system, _without_tool(system, system.one), Origin("two", removed=("tool",)))
    builder.commits = [_with_base(system, system.two, file="newer")]
    run(system, packages.upgrade, Upgrade(packages=False))
    assert builder.opened[0][0] == system.two
    assert builder.wanted[0][0].remove == ("tool",)
    assert removed(system) == ("tool",)


def test_the_last_override_reset_is_the_base(system: System, builder: Builder):
    stage(system, _without_tool(system, system.one), Origin("one", removed=("tool",)))
    builder.commits = [system.one]
    result = change(system, reset_all=True)
    assert result.details["commit"] == system.one
    # What the package's scripts had made of the machine is made again.
    assert (builder.wanted[0][1].deployed, builder.options[0]["configure"]) == (system.one, ("tool",))


@pytest.mark.parametrize("requested", [(), ("extra",)])
def test_a_dry_reset_shows_what_comes_back(system: System, builder: Builder, requested: tuple[str, ...]):
    """The plan of packages is none, or says what is laid on the base."""
    present = _without_tool(system, system.one)
    stage(system, present, Origin("one", requested, removed=("tool",)))
    builder.commits = ["not built" if requested else None]
    assert change(system, reset=("tool",), deploy=DRY).changed
    (difference,) = system.plans("packages")
    assert [row["name"] for row in difference["added"]] == [*requested, "tool"]
    assert system.order() == [present, system.one] and removed(system) == ("tool",)


def test_the_plan_of_the_present_tree_says_it_all(system: System, builder: Builder):
    builder.commits = ["not built"]
    assert run(system, packages.install, Install(packages=("extra",), deploy=DRY)).changed
    assert len(system.plans("transaction")) == 1 and not system.plans("packages")


def test_a_replacement_is_reset_to_the_version_of_the_base(system: System, builder: Builder):
    builder.commits = [_with_base(system, system.one, packages="two")]
    change(system, replace=("tool=2.0",))
    entry = status.status(StatusQuery()).to_json()["deployments"][0]
    change_of_tool = {"name": "tool", "architecture": "amd64", "old": "1.0", "new": "2.0"}
    assert entry["base-local-replacements"] == [change_of_tool]
    builder.commits = [None]  # there is nothing to remove
    result = change(system, reset=("tool",))
    assert result.details["commit"] == system.one


def test_a_replacement_waits_for_a_base_that_has_the_package(system: System, builder: Builder):
    """It is active, inactive and active again; only a replacement is, and it is reset in any state."""
    stage(system, system.one, Origin("one", ("extra=1", "tool=2.0"), overriding=("tool",)))
    system.repo.set_ref("one", _without_tool(system, system.two))
    builder.commits = [_with_base(system, system.two, file="a"), _with_base(system, system.one, file="b")]
    run(system, packages.upgrade, Upgrade(packages=False))
    system.repo.set_ref("one", system.one)
    run(system, packages.upgrade, Upgrade(packages=False, allow_downgrade=True))
    installed = [wanted.install for wanted, _label in builder.wanted]
    assert installed == [("extra=1",), ("extra=1", "tool=2.0")]
    assert origins(system)[0] == ("extra=1", "tool=2.0")


def test_a_reset_deploys_the_base_or_drops_a_part(system: System, builder: Builder, layered):
    origin = Origin("one", ("extra",), upgraded=True, commands=(("true",),), removed=("tool",))
    stage(system, layered, origin)
    builder.commits = [_with_base(system, system.one, file="a")]
    run(system, override.reset, Reset(layers=True))
    assert (origins(system)[0], removed(system), builder.wanted[0][0].drop) == ((), ("tool",), ("extra",))
    builder.commits = [_with_base(system, system.one, file="b")]
    run(system, override.reset, Reset(overrides=True, install=("more",)))
    assert (origins(system)[0], removed(system)) == (("more",), ())
    builder.commits = [_with_base(system, system.one, file="c")]
    run(system, override.reset, Reset(initramfs=True, install=("other",), uninstall=("more",)))
    assert origins(system)[0] == ("other",)
    builder.commits = [system.one]
    result = run(system, override.reset, Reset(uninstall=("other",)))
    assert result.details["commit"] == system.one
    with system.open(writable=False) as machine:
        assert machine.deployments().all[0].origin == Origin("one")


def test_what_is_tracked_goes_along_until_it_is_given_up(system: System, builder: Builder, layered):
    """The present tree gets it; a new base gets it, too; without it there is the base again."""
    bases = {"a": system.one, "b": system.one, "c": system.two}
    builder.commits = [_with_base(system, base, file=name) for name, base in bases.items()]
    run(system, initramfs.track, InitramfsEtc(track=("/etc/passwd", "/etc/group")))
    tracked = ("/etc/group", "/etc/passwd")
    assert builder.opened[-1][0] == system.one and not builder.opened[-1][1].archives
    assert builder.options[-1]["initramfs"] == OwnInitramfs(None, tracked, anew=True)
    assert not run(system, initramfs.track, InitramfsEtc(track=("/etc/group",))).changed
    assert len(builder.opened) == 1
    run(system, initramfs.track, InitramfsEtc(force_sync=True))
    assert builder.options[-1]["initramfs"] == OwnInitramfs(None, tracked, anew=True)
    system.repo.set_ref("one", system.two)
    run(system, packages.upgrade, Upgrade(packages=False))
    assert builder.opened[-1][0] == system.two
    assert builder.options[-1]["initramfs"] == OwnInitramfs(None, tracked, anew=True)
    result = run(system, initramfs.track, InitramfsEtc(untrack_all=True))
    assert result.details["commit"] == system.two and len(builder.opened) == 3


def test_what_is_tracked_no_longer_goes_from_a_layered_tree(system: System, builder: Builder, layered):
    stage(system, layered, Origin("one", ("extra",), initramfs_etc=("/etc/passwd",)))
    builder.commits = [_with_base(system, system.one, file="a")]
    run(system, initramfs.track, InitramfsEtc(untrack=("/etc/passwd",)))
    assert builder.opened[-1][0] == layered
    assert builder.options[-1]["initramfs"] == OwnInitramfs(None, (), anew=True)


def test_what_cannot_be_tracked_changes_nothing(system: System, builder: Builder):
    with pytest.raises(Refused, match="/etc/fx-none"):
        run(system, initramfs.track, InitramfsEtc(track=("/etc/fx-none",)))
    with pytest.raises(UsageError, match="/usr"):
        run(system, initramfs.track, InitramfsEtc(track=("/usr/bin/env",)))
    assert builder.opened == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"remove": ("extra",)}, "extra is no package of the base"),
        ({"replace": ("extra=1",)}, "extra is no package of the base"),
        ({"replace": ("tool",)}, "a replacement needs a version"),
        ({"reset": ("tool",)}, "tool has no override"),
        ({"uninstall": ("more",)}, "'more' is not requested"),
        ({"remove": ("tool",), "install": ("tool",)}, "tool is removed from the base"),
    ],
)
def test_overrides_that_make_no_sense(system: System, builder: Builder, options, reason):
    with pytest.raises(UsageError, match=reason):
        change(system, **options)
    assert builder.opened == []


def test_uninstalling_everything_is_the_base(system: System, builder: Builder, layered):
    stage(system, layered, Origin("one", ("extra",)))
    builder.commits = [system.one]
    result = run(system, packages.uninstall, Uninstall(everything=True))
    assert result.details["commit"] == system.one
    assert origins(system)[0] == ()
    ((wanted, label),) = builder.wanted
    assert (wanted.drop, label.deployed) == (("extra",), system.one)  # only its scripts are run


def test_uninstalling_everything_keeps_overrides(system: System, builder: Builder, layered):
    """A request without a version for a package of the base overrides nothing."""
    stage(system, layered, Origin("one", ("base", "extra", "tool=2.0"), removed=("other",)))
    builder.commits = [_with_base(system, system.one, file="a")]
    run(system, packages.uninstall, Uninstall(everything=True))
    assert (origins(system)[0], removed(system)) == (("tool=2.0",), ("other",))
    assert [start for start, _sources in builder.opened] == [layered, system.one]
    assert (builder.wanted[0][0].install, builder.wanted[0][0].remove) == (("tool=2.0",), ("other",))


def test_uninstalling_what_is_not_requested(system: System, builder: Builder):
    with pytest.raises(UsageError, match="'nosuch' is not requested"):
        run(system, packages.uninstall, Uninstall(packages=("nosuch",)))
    assert not run(system, packages.uninstall, Uninstall(packages=("nosuch",), idempotent=True)).changed


def test_install_and_uninstall_at_once(system: System, builder: Builder, layered):
    stage(system, layered, Origin("one", ("extra",)))
    builder.commits = [_with_base(system, system.one, file="other")]
    run(system, packages.install, Install(packages=("other",), uninstall=("extra",)))
    assert origins(system)[0] == ("other",)
    ((start, sources),) = builder.opened
    assert (start, sources.cache_only) == (layered, False)
    assert (builder.wanted[0][0].install, builder.wanted[0][0].drop) == (("other",), ("extra",))


def test_upgrade_follows_the_ref_of_the_base(system: System, builder: Builder):
    system.repo.set_ref("one", system.two)
    result = run(system, packages.upgrade, Upgrade(packages=False))
    assert result.details["commit"] == system.two
    assert builder.opened == []


def test_a_base_is_not_followed_before_that_is_configured(system: System, builder: Builder):
    """The reason stays with whatever is layered; another branch has none."""
    stage(system, system.one, Origin("one", unconfigured="it needs a subscription"))
    system.repo.set_ref("one", system.two)
    with pytest.raises(Refused, match="it needs a subscription"):
        run(system, packages.upgrade, Upgrade(packages=False))
    builder.commits = [_with_base(system, system.one, file="extra")]
    run(system, packages.install, Install(packages=("extra",)))
    with pytest.raises(Refused, match="it needs a subscription"):
        run(system, packages.upgrade, Upgrade(packages=False))


def test_upgrade_of_packages_on_the_same_base(system: System, builder: Builder):
    builder.commits = [None]
    assert not run(system, packages.upgrade, Upgrade()).changed
    ((wanted, _label),) = builder.wanted
    assert (wanted.install, wanted.upgrade) == ((), True)
    assert builder.opened[0][1].upgrade


def test_upgrade_layers_again_on_a_new_base(system: System, builder: Builder, layered):
    stage(system, layered, Origin("one", ("extra",)))
    system.repo.set_ref("one", system.two)
    builder.commits = [_with_base(system, system.two, file="new-base")]
    run(system, packages.upgrade, Upgrade(packages=False))
    ((start, _sources),) = builder.opened
    ((wanted, label),) = builder.wanted
    assert (start, label.base, wanted.upgrade) == (system.two, system.two, False)
    assert (wanted.install, wanted.keep) == (("extra",), {"extra": "1", "tool:amd64": "2.0"})


def test_what_no_archive_offers_is_kept_on_a_new_base(system: System, builder: Builder, layered):
    file = LocalPackage("1" * 64, "own", "3", "all")
    stage(system, layered, Origin("one", ("extra=1",), (file,)))
    system.repo.set_ref("one", system.two)
    builder.commits, builder.kept = [_with_base(system, system.two, file="new-base")], {"extra": "1"}
    run(system, packages.upgrade, Upgrade())
    ((_start, sources),) = builder.opened
    assert (sources.requested, sources.local) == (("extra=1",), (file,))
    assert {package.qualified for package in sources.in_use} == {"extra", "tool:amd64"}
    assert builder.wanted[0][0].kept == {"extra": "1"}


def test_an_upgrade_on_the_same_base_needs_no_file(system: System, builder: Builder, layered):
    stage(system, layered, Origin("one", ("extra=1",), (LocalPackage("1" * 64, "own", "3", "all"),)))
    builder.commits = [None]
    run(system, packages.upgrade, Upgrade())
    ((_start, sources),) = builder.opened
    assert (sources.requested, sources.local, sources.in_use) == ((), (), frozenset())
    assert builder.wanted[0][0].install == ("extra=1", "own=3")


def test_an_upgrade_of_packages_layers_and_drops_some_too(system: System, builder: Builder, layered):
    stage(system, layered, Origin("one", ("extra", "more=1")))
    builder.commits = [_with_base(system, system.one, file="more")]
    run(system, packages.upgrade, Upgrade(install=("other", "more=1", "tool"), uninstall=("extra",)))
    assert origins(system)[0] == ("more=1", "other")  # the rest was there
    ((start, sources),) = builder.opened
    goal = builder.wanted[0][0]
    assert (start, sources.requested, goal.upgrade) == (layered, (), True)
    assert (goal.install, goal.drop) == (("more=1", "other"), ("extra",))
    assert goal.needed >= {"base", "tool", "more", "other"}


def test_an_upgrade_to_a_new_base_layers_and_drops_some_too(system: System, builder: Builder, layered):
    stage(system, layered, Origin("one", ("more",)))
    system.repo.set_ref("one", system.two)
    builder.commits = [_with_base(system, system.two, file="new-base")]
    request = Upgrade(packages=False, install=("other", "extra"), uninstall=("more",))
    run(system, packages.upgrade, request)
    goal = builder.wanted[0][0]
    assert [start for start, _sources in builder.opened] == [layered, system.two]
    assert (goal.install, goal.drop, builder.before) == (("other",), (), [None, REMOVED])
    assert builder.removals == [
        PackageGoal(drop=("more",), needed=frozenset({"base", "extra", "other", "tool"}))
    ]
    assert origins(system)[0] == ("other",)  # the new base has the extra one


def test_a_preview_runs_no_scripts_of_dropped_packages(system: System, builder: Builder, layered):
    stage(system, layered, Origin("one", ("more", "other")))
    system.repo.set_ref("one", system.two)
    builder.commits = [_with_base(system, system.two, file="new-base")]
    run(system, packages.upgrade, Upgrade(packages=False, uninstall=("more",), deploy=DRY))
    assert (builder.removals, builder.before) == ([], [None])


def test_the_last_package_goes_with_a_new_base(system: System, builder: Builder, layered):
    stage(system, layered, Origin("one", ("more",)))
    system.repo.set_ref("one", system.two)
    builder.commits = [system.two]
    result = run(system, packages.upgrade, Upgrade(packages=False, uninstall=("more",)))
    ((goal, label),) = builder.wanted
    assert (builder.opened[0][0], label.deployed, goal.drop) == (layered, system.two, ("more",))
    assert (origins(system)[0], result.details["commit"]) == ((), system.two)


def test_an_upgrade_that_drops_the_last_request_is_the_new_base(system: System, builder: Builder, layered):
    stage(system, layered, Origin("one", ("extra",)))
    system.repo.set_ref("one", system.two)
    result = run(system, packages.upgrade, Upgrade(packages=False, uninstall=("extra",)))
    assert (result.details["commit"], origins(system)[0], builder.opened) == (system.two, (), [])


def test_without_a_newer_base_only_packages_change(system: System, builder: Builder, layered):
    builder.commits = [layered]
    run(system, packages.upgrade, Upgrade(packages=False, install=("extra",)))
    assert (origins(system)[0], builder.wanted[0][0].upgrade) == (("extra",), False)


def test_an_upgrade_that_drops_a_replacement_starts_from_the_base(system: System, builder: Builder, layered):
    stage(system, layered, Origin("one", ("extra", "tool=2.0")))
    builder.commits = [_with_base(system, system.one, file="more")]
    run(system, packages.upgrade, Upgrade(uninstall=("tool",)))
    goal = builder.wanted[0][0]
    assert (builder.opened[0][0], goal.install, goal.upgrade) == (system.one, ("extra",), True)


@pytest.mark.parametrize("check", [False, True])
def test_an_upgrade_refuses_to_drop_what_is_not_requested(system: System, builder: Builder, check):
    with pytest.raises(UsageError, match="'nosuch' is not requested"):
        run(system, packages.upgrade, Upgrade(uninstall=("nosuch",), check=check))
    assert (builder.opened, system.order()) == ([], [system.one])


def test_a_check_with_packages_is_not_the_update_that_is_offered(system: System, builder: Builder, layered):
    builder.commits = [layered]
    run(system, packages.upgrade, Upgrade(check=True, install=("extra",)))
    assert queries.answer_json("available-update", {}) is None


@pytest.mark.parametrize("request_", [Upgrade(base=False, packages=False), Upgrade(packages=False)])
def test_upgrade_without_anything_newer(system: System, builder: Builder, request_):
    assert not run(system, packages.upgrade, request_).changed
    assert system.order() == [system.one]


def test_newer_versions_of_what_is_pinned_are_recorded(system: System, builder: Builder, layered):
    stage(system, layered, Origin("one", ("extra=1",)))
    newer = Newer("extra=1", "2", "Debian:stable-security/main", security=True)
    builder.commits, builder.newer = [None, None], (newer,)
    run(system, packages.install, Install(packages=("other",), deploy=DRY))
    assert newer_versions.read() == ()  # it is about packages that nobody has asked for in earnest
    run(system, packages.upgrade, Upgrade(check=True))
    assert builder.wanted[-1][0].pinned == ("extra=1",)
    assert newer_versions.read() == (newer,)
    entries = status.status(StatusQuery()).deployments
    assert [entry.newer for entry in entries] == [(newer,), ()]


def test_a_request_follows_the_security_update_that_was_taken(system: System, builder: Builder, layered):
    stage(system, layered, Origin("one", ("extra=1", "other=1")))
    builder.commits, builder.taken = [None, None], (Newer("extra=1", "2", "", security=True),)
    run(system, packages.upgrade, Upgrade(check=True))
    assert builder.wanted[-1][0].yielding == {"extra=1", "other=1"}
    assert origins(system)[0] == ("extra=1", "other=1")
    assert run(system, packages.upgrade, Upgrade()).changed
    assert origins(system)[0] == ("extra=2", "other=1")


def test_a_check_stages_nothing(system: System, builder: Builder):
    system.repo.set_ref("one", system.two)
    request = Upgrade(check=True, packages=False, deploy=LIVE)
    assert run(system, packages.upgrade, request).changed
    assert system.order() == [system.one]
    assert system.kernel.usr == []


def test_a_file_that_is_no_package_is_a_mistake(system: System, builder: Builder, tmp_path):
    (tmp_path / "x.deb").write_text("no package")
    with openfiles.opened(tmp_path / "x.deb") as file, pytest.raises(UsageError, match="not a Debian pack"):
        run(system, packages.install, Install(files=(file,)))
    with openfiles.opened(tmp_path) as file, pytest.raises(UsageError, match="is not a file"):
        run(system, packages.install, Install(files=(file,)))
    with openfiles.opened(tmp_path) as file, pytest.raises(UsageError, match="is not a file"):
        change(system, install_files=(file,))
    with openfiles.opened(tmp_path) as file, pytest.raises(UsageError, match="is not a file"):
        run(system, override.reset, Reset(files=(file,)))
    assert not local_debs.STORE.exists()


def test_local_packages_are_kept_as_long_as_a_deployment_has_them(system: System, builder: Builder):
    local_debs.STORE.mkdir()
    for name in ("used", "unused"):
        (local_debs.STORE / f"{name}.deb").touch()
    package = LocalPackage("used", "x", "1", "all")
    stage(system, system.two, Origin("one", (), (package,)))
    with system.transaction() as tx:
        local_debs.remove_unused(frozenset(p.sha256 for d in tx.deployments.all for p in d.origin.local))
    assert [path.name for path in local_debs.STORE.iterdir()] == ["used.deb"]
