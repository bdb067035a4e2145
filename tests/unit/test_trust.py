"""Which commits are deployed: real keys, real signatures, and a remote that is not to be trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from apt_ostree.core import apply_live, packages, status
from apt_ostree.errors import Refused
from apt_ostree.model.origin import Origin
from apt_ostree.model.queries import Status
from apt_ostree.model.requests.live import ApplyLive
from apt_ostree.model.requests.options import DeployOptions
from apt_ostree.model.requests.packages import Upgrade
from apt_ostree.system.ostree import remotes
from apt_ostree.system.ostree.gi_ostree import GLib
from tests.unit.repos import System
from tests.unit.vendor import (
    BRANCH,
    FOLLOWED,
    Signer,
    Vendor,
    add_remote,
    deploy,
    pending,
    rebase_to,
    signer,
)

#: A time in the past, as GnuPG reads it.
LONG_AGO = "20200101T000000"


@pytest.fixture(scope="module")
def key() -> Iterator[Signer]:
    """The vendor's key."""
    with signer() as made:
        yield made


@pytest.fixture(scope="module")
def stranger() -> Iterator[Signer]:
    """A good key, but nobody's."""
    with signer() as made:
        yield made


@pytest.fixture
def verified(system: System, vendor: Vendor, key: Signer) -> Vendor:
    """The vendor's commits have to be signed; the one that is booted is."""
    require_signatures(system, vendor, key)
    key.sign(vendor.repo, vendor.commits[1])
    key.sign(system.repo, vendor.commits[1])
    return vendor


def require_signatures(system: System, vendor: Vendor, *keys: Signer) -> None:
    system.repo.handle.remote_delete("vendor", None)
    add_remote(system.repo, "vendor", vendor.path, verify=True)
    for one in keys:
        one.trusted_by(system.repo, "vendor")


def upgrade(system: System, **options: Any) -> bool:
    return system.run(packages.upgrade, Upgrade(packages=False, **options)).changed


def refused(system: System, vendor: Vendor, change: Callable[[], object]) -> Refused:
    """Return the refusal of a change, which has left everything as it was."""
    before = pending(system), system.repo.resolve_or_none(FOLLOWED)
    with pytest.raises(Refused) as caught:
        change()
    assert (pending(system), system.repo.resolve_or_none(FOLLOWED)) == before
    return caught.value


# --- signatures


def test_a_signed_commit(system: System, verified: Vendor, key: Signer):
    key.sign(verified.repo, verified.commits[3])
    assert upgrade(system) and pending(system)[0] == verified.commits[3]
    newest = status.status(Status(sysroot=str(system.place))).deployments[0]
    (signature,) = newest.signatures
    assert newest.gpg_enabled and signature.valid and signature.mail == "signer@example.com"
    assert signature.describe() == f"Valid signature by {signature.fingerprint}"


def test_an_unsigned_commit(system: System, verified: Vendor):
    refused(system, verified, lambda: upgrade(system))
    refused(system, verified, lambda: deploy(system, "13.3"))
    refused(system, verified, lambda: deploy(system, verified.other, skip_branch_check=True))
    refused(system, verified, lambda: rebase_to(system, "debian/desktop"))
    assert not system.repo.has_commit(verified.commits[3])


def test_a_strangers_signature(system: System, verified: Vendor, stranger: Signer):
    stranger.sign(verified.repo, verified.commits[3])
    assert "list-gpg-keys vendor" in str(refused(system, verified, lambda: upgrade(system)).hint)


def test_one_good_signature_is_enough(system: System, verified: Vendor, key: Signer, stranger: Signer):
    stranger.sign(verified.repo, verified.commits[3])
    key.sign(verified.repo, verified.commits[3])
    assert upgrade(system)


def test_another_commits_signature(system: System, verified: Vendor, key: Signer):
    key.sign(verified.repo, verified.commits[2])
    _ok, metadata = verified.repo.handle.read_commit_detached_metadata(verified.commits[2], None)
    verified.repo.handle.write_commit_detached_metadata(verified.commits[3], metadata, None)
    refused(system, verified, lambda: upgrade(system))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"now": LONG_AGO, "signature": "1d"}, "it has expired at 2020-01-02T00:00:00Z"),
        ({"now": LONG_AGO, "expires": "1d"}, "the key has expired"),
    ],
)
def test_what_has_expired(system: System, vendor: Vendor, options: dict[str, str], reason: str):
    with signer(**options) as old:
        old.sign(vendor.repo, vendor.commits[3])
        remotes.pull_commit(system.repo, "vendor", vendor.commits[3], print)  # it is here, from better days
        require_signatures(system, vendor, old)
        refused(system, vendor, lambda: upgrade(system))
        refusal = refused(system, vendor, lambda: deploy(system, vendor.commits[3], skip_branch_check=True))
    assert [line.partition(": ")[2] for line in refusal.details] == [reason]


def test_a_key_that_was_revoked(system: System, vendor: Vendor):
    with signer() as lost:
        lost.sign(vendor.repo, vendor.commits[3])
        lost.revoke()
        require_signatures(system, vendor, lost)
        refused(system, vendor, lambda: upgrade(system))


def test_what_was_pulled_without_a_signature_is_not_deployed_later(
    system: System, vendor: Vendor, key: Signer
):
    remotes.pull(system.repo, FOLLOWED, print)
    require_signatures(system, vendor, key)
    refusal = refused(system, vendor, lambda: deploy(system, "13.3", cache_only=True))
    assert refusal.details == () and "has no valid signature" in refusal.message
    refused(system, vendor, lambda: upgrade(system))


def test_without_signatures_only_by_configuration(system: System, vendor: Vendor):
    assert upgrade(system)
    (warning,) = [text for text in system.told("warning") if "was not verified" in text]
    assert "gpg-verify=false is set for the remote vendor" in warning
    newest = status.status(Status(sysroot=str(system.place))).deployments[0]
    assert not newest.gpg_enabled and newest.signatures == ()


def test_a_commit_by_its_checksum_is_noted_unless_a_remote_has_signed_it(
    system: System, verified: Vendor, key: Signer
):
    newest = verified.commits[3]
    with system.open() as machine:
        machine.repo.handle.pull_with_options(
            f"file://{verified.path}",
            GLib.Variant("a{sv}", {"refs": GLib.Variant("as", [newest])}),
            None,
            None,
        )
    key.sign(system.repo, newest)
    rebase_to(system, newest)
    assert not [text for text in system.told("warning") if "was not verified" in text]
    rebase_to(system, system.two)
    (warning,) = [text for text in system.told("warning") if "was not verified" in text]
    assert "no remote's keys have signed it" in warning and pending(system)[0] == system.two


def test_a_remote_that_is_gone_and_a_value_that_cannot_be_read(system: System, vendor: Vendor):
    remotes.pull(system.repo, FOLLOWED, print)
    config = system.place / "ostree/repo/config"
    good = config.read_text()
    assert "gpg-verify=false" in good
    config.write_text(good.replace("gpg-verify=false", "gpg-verify=maybe"))
    refused(system, vendor, lambda: deploy(system, "13.3", cache_only=True))
    config.write_text(good)
    system.repo.handle.remote_delete("vendor", None)
    refusal = refused(system, vendor, lambda: deploy(system, "13.3", cache_only=True))
    assert "there is no remote 'vendor'" in refusal.message
    refused(system, vendor, lambda: upgrade(system, deploy=DeployOptions(cache_only=True)))
    shown = status.status(Status(sysroot=str(system.place))).deployments[0]
    assert shown.remote_error == "there is no remote 'vendor'" and not shown.gpg_enabled


def test_earlier_commits_need_no_signature_to_find_a_signed_one(
    system: System, verified: Vendor, key: Signer
):
    key.sign(verified.repo, verified.commits[3])  # none before it was pulled; they are not signed
    assert deploy(system, "13.3").changed
    with pytest.raises(Refused):
        deploy(system, "13.2")


def test_what_becomes_live_by_its_name(system: System, vendor: Vendor, key: Signer):
    remotes.pull(system.repo, FOLLOWED, print)
    require_signatures(system, vendor, key)
    for target in (FOLLOWED, vendor.commits[3]):
        request = ApplyLive(target=target)
        refused(system, vendor, lambda request=request: system.run(apply_live.apply_live, request))
    key.sign(system.repo, vendor.commits[3])
    assert system.run(apply_live.apply_live, ApplyLive(target=FOLLOWED)).live


# --- time


def test_a_branch_that_goes_back(system: System, verified: Vendor, key: Signer):
    key.sign(verified.repo, verified.commits[0])
    verified.repo.set_ref(BRANCH, verified.commits[0])
    assert "--allow-downgrade" in str(refused(system, verified, lambda: upgrade(system)).hint)
    # Nor if what was pulled is forgotten.
    system.repo.handle.set_ref_immediate("vendor", BRANCH, None, None)
    refused(system, verified, lambda: upgrade(system))
    assert upgrade(system, allow_downgrade=True) and pending(system)[0] == verified.commits[0]


def test_an_older_commit_that_is_here_is_no_upgrade(system: System, vendor: Vendor):
    remotes.pull_commit(system.repo, "vendor", vendor.commits[0], print)
    system.repo.handle.set_ref_immediate("vendor", BRANCH, vendor.commits[0], None)
    refused(system, vendor, lambda: upgrade(system, deploy=DeployOptions(cache_only=True)))


def test_a_remotes_branch_is_not_taken_for_a_local_one(system: System, vendor: Vendor):
    remotes.pull(system.repo, FOLLOWED, print)
    with system.open() as machine:
        present = machine.deployments().all[0]
        machine.stage(present.checksum, Origin(BRANCH), present)
    assert not upgrade(system)
