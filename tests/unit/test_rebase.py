"""deploy and rebase, on real deployments that follow a branch of a real remote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from apt_ostree.core import deploy as module_deploy
from apt_ostree.core import packages, rebase
from apt_ostree.core.build.layering import Built
from apt_ostree.core.deploy import Recipe, Target
from apt_ostree.errors import ExternalFailure, Refused, UsageError
from apt_ostree.model import layout
from apt_ostree.model.package_plan import PackagePlan
from apt_ostree.model.requests.deployments import Deploy
from apt_ostree.model.requests.options import DeployOptions
from apt_ostree.model.requests.packages import Upgrade
from apt_ostree.system.ostree import remotes
from apt_ostree.system.ostree.gi_ostree import OSTree
from tests.unit import repos
from tests.unit.repos import System
from tests.unit.vendor import BRANCH, FOLLOWED, Vendor, add_remote, deploy, pending, rebase_to

# --- deploy


@pytest.mark.parametrize("revision", ["13.3", "version=13.3", "newest", "revision=newest"])
def test_a_commit_of_the_branch_by_version_or_checksum(system: System, vendor: Vendor, revision: str):
    result = deploy(system, revision.replace("newest", vendor.commits[3]))
    assert (result.changed, result.next_boot) == (True, True)
    assert pending(system) == (vendor.commits[3], FOLLOWED)
    # The ref is not what was deployed, nor a commit without its tree.
    assert system.repo.resolve_or_none(FOLLOWED) == vendor.commits[1]


def test_an_older_one_is_a_downgrade_that_the_next_upgrade_ends(system: System, vendor: Vendor):
    with pytest.raises(Refused, match="is older than the present one") as caught:
        deploy(system, "13.0", disallow_downgrade=True)
    assert "--disallow-downgrade" in str(caught.value.hint)
    deploy(system, "13.0")
    assert pending(system) == (vendor.commits[0], FOLLOWED)
    system.run(packages.upgrade, Upgrade(packages=False))
    assert pending(system) == (vendor.commits[3], FOLLOWED)


def test_the_present_one_changes_nothing(system: System, vendor: Vendor):
    assert not deploy(system, "13.1", disallow_downgrade=True).changed


def test_what_the_branch_does_not_have(system: System, vendor: Vendor):
    with pytest.raises(UsageError, match=r"vendor:debian/server has no version '13\.7'") as caught:
        deploy(system, "13.7")
    assert [line.split()[1] for line in caught.value.details] == ["13.3", "13.2", "13.1", "13.0"]
    with pytest.raises(UsageError, match=f"has no commit {vendor.other[:12]}"):
        deploy(system, vendor.other)
    assert pending(system) == (vendor.commits[1], FOLLOWED)
    deploy(system, vendor.other, skip_branch_check=True)
    assert pending(system) == (vendor.other, FOLLOWED)


def test_a_commit_that_is_nowhere(system: System, vendor: Vendor):
    with pytest.raises(ExternalFailure, match="pull commit 000000000000"):
        deploy(system, "0" * 64, skip_branch_check=True)
    assert pending(system) == (vendor.commits[1], FOLLOWED)


def test_without_network_only_what_is_there(system: System, vendor: Vendor):
    remotes.pull(system.repo, FOLLOWED, print)
    system.repo.handle.remote_delete("vendor", None)
    add_remote(system.repo, "vendor", vendor.path.with_name("gone"))
    with pytest.raises(ExternalFailure, match="pull the history of vendor:debian/server"):
        deploy(system, "13.3")
    with pytest.raises(UsageError, match="is not in the repository") as caught:
        deploy(system, "0" * 64, skip_branch_check=True, cache_only=True)
    assert "--cache-only" in str(caught.value.hint)
    deploy(system, "13.3", cache_only=True)
    assert pending(system) == (vendor.commits[3], FOLLOWED)


def test_what_was_downloaded_is_deployed_without_network(system: System, vendor: Vendor):
    download = DeployOptions(download_only=True)
    for revision in ("13.2", "13.3", "13.0"):
        system.run(rebase.deploy_revision, Deploy(revision=revision, deploy=download))
        assert pending(system) == (vendor.commits[1], FOLLOWED)
    assert system.repo.resolve_or_none(FOLLOWED) == vendor.commits[3]  # not back to 13.0
    system.repo.handle.remote_delete("vendor", None)
    add_remote(system.repo, "vendor", vendor.path.with_name("gone"))
    deploy(system, "13.3", cache_only=True)
    assert pending(system) == (vendor.commits[3], FOLLOWED)


def test_a_dry_run_deploys_nothing(system: System, vendor: Vendor):
    request = Deploy(revision="13.3", deploy=DeployOptions(dry_run=True))
    assert system.run(rebase.deploy_revision, request).changed
    assert pending(system) == (vendor.commits[1], FOLLOWED)


def test_a_deployment_without_a_branch_has_no_versions(system: System):
    with system.open() as machine:
        present = machine.deployments().all[0]
        machine.stage(system.two, replace(present.origin, refspec=system.two), present)
    with pytest.raises(UsageError, match="follows no branch"):
        deploy(system, "13.3")
    deploy(system, system.one)
    assert pending(system)[0] == system.one


def test_commits_without_their_trees_do_not_stay(system: System, vendor: Vendor):
    deploy(system, "13.3")
    repo = system.repo
    has = {n: repo.handle.has_object(OSTree.ObjectType.COMMIT, vendor.commits[n], None)[1] for n in range(4)}
    assert has == {0: False, 1: True, 2: False, 3: True}
    assert not list(Path(system.place, "ostree/repo/state").glob("*.commitpartial"))


# --- rebase


def test_another_branch_of_the_same_remote(system: System, vendor: Vendor):
    rebase_to(system, "debian/desktop")
    assert pending(system) == (vendor.other, "vendor:debian/desktop")
    assert system.repo.resolve_or_none(FOLLOWED) is None  # forgotten
    assert system.repo.has_commit(vendor.commits[1])  # but deployed


def test_the_branch_that_is_left_may_be_kept(system: System, vendor: Vendor):
    rebase_to(system, "debian/desktop", skip_purge=True)
    assert system.repo.resolve_or_none(FOLLOWED) == vendor.commits[1]


def test_a_commit_of_another_branch(system: System, vendor: Vendor):
    add_remote(system.repo, "mirror", vendor.path)
    with pytest.raises(Refused, match="older"):
        rebase_to(system, "mirror:", "13.0", disallow_downgrade=True)
    rebase_to(system, "mirror:", "13.0")
    assert pending(system) == (vendor.commits[0], f"mirror:{BRANCH}")


def test_a_local_branch_and_a_commit(system: System, vendor: Vendor):
    rebase_to(system, ":two")
    assert pending(system) == (system.two, "two")
    rebase_to(system, system.one)
    assert pending(system) == (system.one, system.one)
    assert not system.run(packages.upgrade, Upgrade(packages=False)).changed  # it stays there
    rebase_to(system, "two")
    assert system.repo.resolve_or_none("two") == system.two  # what is local is not ours


def test_branches_that_are_not_there(system: System, vendor: Vendor):
    with pytest.raises(UsageError, match="Old and new refs are equal"):
        rebase_to(system, BRANCH)
    with pytest.raises(UsageError, match="there is no remote 'nosuch'") as caught:
        rebase_to(system, "nosuch:x")
    assert "vendor" in str(caught.value.hint)
    with pytest.raises(ExternalFailure, match="pull vendor:debian/nosuch"):
        rebase_to(system, "debian/nosuch")
    with pytest.raises(UsageError, match="nosuch"):
        rebase_to(system, ":nosuch")
    assert pending(system) == (vendor.commits[1], FOLLOWED)
    assert system.repo.resolve_or_none(FOLLOWED) == vendor.commits[1]


# --- packages in the same transaction


@pytest.fixture
def goals(system: System, vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes that are built, each to a commit with one package more than a commit of the vendor."""
    found: list[Recipe] = []

    def build(_tx: object, target: Target, _options: object, **_: object) -> Built | None:
        if target.recipe is None:
            return None
        found.append(target.recipe)
        if target.recipe.only_scripts:
            return Built(PackagePlan(), target.recipe.base)
        words = {layout.META_BASE.replace("-", "_"): target.recipe.base}
        tree = {**repos.ONE, "usr/bin/extra": str(len(found))}
        commit = repos.write_commit(system.repo, tree, ref="built", packages=repos.PACKAGES["two"], **words)
        return Built(PackagePlan(), commit)

    monkeypatch.setattr(module_deploy, "_build", build)
    return found


def requested(system: System) -> tuple[str, ...]:
    with system.open(writable=False) as machine:
        return machine.deployments().all[0].origin.requested


def test_packages_are_layered_and_dropped_on_the_commit(system: System, vendor: Vendor, goals: list[Recipe]):
    request = Deploy(revision="13.3", install=("extra",))
    system.run(rebase.deploy_revision, request)
    assert (goals[0].base, goals[0].install) == (vendor.commits[3], ("extra",))
    assert requested(system) == ("extra",)
    request = Deploy(revision="13.2", install=("more=1",), uninstall=("extra",))
    system.run(rebase.deploy_revision, request)
    assert (goals[1].base, goals[1].install) == (vendor.commits[2], ("more=1",))
    system.run(rebase.deploy_revision, Deploy(revision="13.3", uninstall=("more",)))
    assert (pending(system)[0], requested(system)) == (vendor.commits[3], ())
    assert (goals[2].drop, goals[2].only_scripts) == (("more",), True)


def test_the_present_one_with_its_packages_changes_nothing(
    system: System, vendor: Vendor, goals: list[Recipe]
):
    deploy(system, "13.3", install=("extra",))
    assert not deploy(system, "13.3").changed and len(goals) == 1
    assert deploy(system, "13.3", install=("more",)).changed and len(goals) == 2


def test_packages_are_layered_and_dropped_on_another_branch(
    system: System, vendor: Vendor, goals: list[Recipe]
):
    rebase_to(system, "debian/desktop", install=("extra",))
    assert (goals[0].base, goals[0].install) == (vendor.other, ("extra",))
    assert (pending(system)[1], requested(system)) == ("vendor:debian/desktop", ("extra",))
    rebase_to(system, BRANCH, "13.3", uninstall=("extra",))
    assert (pending(system), requested(system)) == ((vendor.commits[3], FOLLOWED), ())
    assert (goals[1].drop, goals[1].only_scripts) == (("extra",), True)


def test_a_package_to_drop_has_to_be_requested(system: System, vendor: Vendor, goals: list[Recipe]):
    for change in (
        lambda: deploy(system, "13.3", uninstall=("nosuch",)),
        lambda: rebase_to(system, "debian/desktop", uninstall=("nosuch",)),
    ):
        with pytest.raises(UsageError, match="'nosuch' is not requested"):
            change()
    assert (pending(system), goals) == ((vendor.commits[1], FOLLOWED), [])
    with pytest.raises(ValueError, match="a commit, which is not named"):
        Deploy(register_driver="x", install=("extra",))
