"""The commit of a disk that is made of a container image."""

from __future__ import annotations

from pathlib import Path

import pytest

from apt_ostree.core.compose.disk import planning, sources
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure, Refused, UsageError
from apt_ostree.model.requests.images import ComposeDisk
from apt_ostree.system.ostree.new_sysroot import Source
from apt_ostree.system.ostree.repo import Repo
from tests.fixtures import image_tree
from tests.unit.registry import REJECTS, SIGNED, Registry
from tests.unit.repos import System

NAME = "registry.example.org/os:13"
UNVERIFIED = f"ostree-unverified-registry:{NAME}"


@pytest.fixture
def registry(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry with an image; this host itself has no deployment."""
    monkeypatch.setattr("apt_ostree.core.compose.image.planning.os.geteuid", lambda: 0)
    made = Registry(tmp_path / "registry", system)
    made.commit()
    made.names[NAME] = made.image().path
    return made


def source_of(place: Path, image: str, target: str | None = None) -> Source:
    place.mkdir()
    request = ComposeDisk(output="x", image=image, target_image=target)
    source = sources.of_request(Transaction([].append, request.title), request, place)
    assert source
    return source


def test_it_is_the_commit_of_the_image_which_is_followed(registry: Registry, tmp_path: Path):
    digest = registry.image("again").digest
    source = source_of(tmp_path / "work", UNVERIFIED)
    assert source.commit == registry.source.resolve(image_tree.REF)
    assert (source.origin.image, source.origin.image_digest, source.follows) == (
        UNVERIFIED,
        digest,
        UNVERIFIED,
    )
    assert source.image == source.follows == UNVERIFIED and source.remote is None
    assert planning.measure(source).root > 0
    assert Repo.open(source.repo).version(source.commit) == "13.1"


def test_another_name_can_be_followed(registry: Registry, tmp_path: Path):
    local = f"ostree-unverified-image:oci:{registry.names[NAME]}"
    source = source_of(tmp_path / "work", local, UNVERIFIED)
    assert (source.image, source.follows) == (local, UNVERIFIED)
    with pytest.raises(UsageError, match="no name of an image"):
        source_of(tmp_path / "other", local, "os:13")


@pytest.mark.parametrize("policy", [REJECTS, SIGNED])
def test_the_policy_is_enforced(registry: Registry, tmp_path: Path, policy):
    registry.set_policy(policy)
    with pytest.raises(Refused, match="does not accept"):
        source_of(tmp_path / "work", f"ostree-image-signed:docker://{NAME}")


def test_nothing_is_taken_that_nobody_verified_or_can(registry: Registry, tmp_path: Path):
    with pytest.raises(Refused, match="accepts anything"):
        source_of(tmp_path / "one", f"ostree-image-signed:docker://{NAME}")
    remote = f"ostree-remote-image:vendor:docker://{NAME}"
    for number, names in enumerate(((remote,), (UNVERIFIED, remote))):
        with pytest.raises(Refused, match="has none yet"):
            source_of(tmp_path / f"two-{number}", *names)
    with pytest.raises(ExternalFailure, match="cannot look at"):
        source_of(tmp_path / "three", "ostree-unverified-registry:registry.example.org/none:1")
    assert not any(tmp_path.glob("t*/repo"))
