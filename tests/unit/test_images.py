"""Machines on images: rebase, upgrade and deploy, on real deployments and images."""

from __future__ import annotations

import errno
import json
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from apt_ostree.core import automatic, deployments, packages, rebase, status
from apt_ostree.core.compose.image import planning
from apt_ostree.core.images import importing
from apt_ostree.errors import ExternalFailure, Refused, UsageError
from apt_ostree.model import layout, oci, oci_image
from apt_ostree.model.image_screen import Unfit
from apt_ostree.model.queries import Status
from apt_ostree.model.requests.deployments import Cleanup, Rebase
from apt_ostree.model.requests.options import DeployOptions
from apt_ostree.model.requests.packages import Upgrade
from apt_ostree.model.result import Result
from apt_ostree.model.sizes import Space
from apt_ostree.system import available_update, ociblobs, ocilayout, process, space, tarreader
from apt_ostree.system.ostree import image_refs, remotes, signatures
from tests.fixtures import image_tree
from tests.fixtures.image_tree import Image
from tests.unit import registry as registries
from tests.unit.registry import REJECTS, SIGNED, Registry
from tests.unit.repos import System
from tests.unit.vendor import add_remote, deploy, rebase_to, signer

NEW = {"usr/lib/libc.so.6": "newer" * 1000}
NAME = "registry.example.org/os:13"
STATUS = "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\n"


@pytest.fixture
def registry(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setattr(planning.os, "geteuid", lambda: 0)
    made = Registry(tmp_path / "registry", system)
    made.commit()
    return made


@pytest.fixture
def image(registry: Registry) -> Image:
    """An image, which a registry has."""
    made = registry.image()
    registry.names[NAME] = made.path
    return made


def unverified(image: Image) -> str:
    return f"ostree-unverified-image:oci:{image.path}"


def upgrade(system: System, *, check: bool = False, allow_downgrade: bool = False, **options) -> Result:
    request = Upgrade(
        packages=False, check=check, allow_downgrade=allow_downgrade, deploy=DeployOptions(**options)
    )
    return system.run(packages.upgrade, request)


def first(system: System):
    with system.open(writable=False) as machine:
        return machine.deployments().all[0]


def images_refs(system: System) -> dict[str, set[str]]:
    return {kind: set(system.repo.refs(f"apt-ostree/image/{kind}")) for kind in ("layer", "manifest")}


def state(system: System) -> object:
    return system.order(), first(system).origin, images_refs(system), system.repo.refs("")


def refused(system: System, text: str, kind: type[Exception] = Refused) -> Exception:
    """Return why a system does not follow an image, and is as it was before."""
    before = state(system)
    with pytest.raises(kind) as caught:
        rebase_to(system, text)
    assert state(system) == before
    return caught.value


# --- rebase


def test_an_image_of_ours_gives_the_very_commit(system: System, registry: Registry, image: Image):
    commit = registry.source.resolve(image_tree.REF)
    result = rebase_to(system, unverified(image))
    assert (result.changed, result.next_boot, first(system).checksum) == (True, True, commit)
    origin = first(system).origin
    assert (origin.refspec, origin.image, origin.image_digest) == ("", unverified(image), image.digest)
    assert {f"apt-ostree/image/layer/{one[7:]}" for one in image.config["rootfs"]["diff_ids"]} == images_refs(
        system
    )["layer"]
    assert system.repo.metadata(commit)["version"] == "13.1"


def test_a_commit_that_was_here_without_its_tree(system: System, registry: Registry, image: Image):
    commit = registry.source.resolve(image_tree.REF)
    add_remote(system.repo, "vendor", registry.repo)
    remotes.pull_history(system.repo, f"vendor:{image_tree.REF}", print)
    assert not system.repo.has_commit(commit)
    rebase_to(system, unverified(image))
    assert system.repo.has_commit(commit) and first(system).checksum == commit


def test_the_status_names_it(system: System, image: Image):
    rebase_to(system, f"ostree-unverified-registry:{NAME}")
    shown = status.status(Status(sysroot=str(system.place))).deployments[0].to_json()
    assert shown["container-image-reference"] == f"ostree-unverified-registry:{NAME}"
    assert shown["container-image-reference-digest"] == image.digest
    assert (shown["origin"], shown["version"]) == (None, "13.1")


def test_a_new_commit_of_a_derived_image(system: System, registry: Registry, image: Image):
    members = [("etc/motd", "hello"), ("usr/bin/.wh.git", ""), ("usr/lib/git-core/.wh..wh..opq", "")]
    members += [("usr/lib/git-core/only", "x"), ("var/lib/x", "x"), ("run/y", "y")]
    derived = registry.derive(image, "derived", registries.layer(members), created="2026-01-02T03:04:05Z")
    rebase_to(system, unverified(derived))
    commit, repo = first(system).checksum, system.repo
    assert commit != registry.source.resolve(image_tree.REF)
    metadata = repo.metadata(commit)
    assert metadata[layout.META_IMAGE] == unverified(derived)
    assert metadata[layout.META_IMAGE_DIGEST] == derived.digest
    assert json.loads(metadata[layout.META_IMAGE_CONFIG]) == derived.config
    assert json.loads(metadata[layout.META_IMAGE_MANIFEST]) == derived.manifest
    assert (repo.timestamp(commit), repo.version(commit)) == (1767323045, "13.1")
    assert {package.name for package in repo.packages(commit)} == set(image_tree.SOURCES)
    files = dict(paths(system, commit))
    assert {"usr/etc/motd", "usr/lib/git-core/only", "usr/etc/skel/.profile"} <= set(files)
    gone = {
        "usr/bin/git",
        "usr/lib/git-core/git-add",
        "var/lib/x",
        "run/y",
        "etc",
        "usr/lib/sysimage/sbom.spdx.json",
    }
    assert not gone & set(files)
    skel = repo.directory_state(files["usr/etc/skel"].checksum)
    assert (skel.uid, skel.gid) == ((3, 4) if image_tree.IS_ROOT else (skel.uid, skel.gid))


def paths(system: System, commit: str):
    from apt_ostree.system.ostree import contents

    return contents.entries(system.repo, commit)


def test_it_must_be_another_one(system: System, image: Image):
    rebase_to(system, unverified(image))
    assert "upgrade" in str(refused(system, unverified(image), UsageError).hint)
    with pytest.raises(UsageError, match="no revisions"):
        rebase_to(system, f"ostree-unverified-registry:{NAME}", "13.1")


def test_back_to_a_branch(system: System, image: Image):
    rebase_to(system, unverified(image))
    rebase_to(system, ":two")
    origin = first(system).origin
    assert (origin.refspec, origin.image, origin.image_digest) == ("two", "", "")


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_each_compression(system: System, registry: Registry, compression: str):
    made = registry.image("other", compression=oci.Compression(compression))
    rebase_to(system, unverified(made))
    assert first(system).checksum == registry.source.resolve(image_tree.REF)


# --- upgrade


def test_an_upgrade_fetches_and_imports_what_is_new(system: System, registry: Registry, image: Image):
    rebase_to(system, f"ostree-unverified-registry:{NAME}")
    assert not upgrade(system).changed
    assert len(registry.fetched) == 1
    newer = registry.commit(NEW)
    second = registry.image("image")
    result = upgrade(system, check=True)
    assert (result.changed, result.details["image"]["digest"]) == (True, second.digest)
    assert len(registry.fetched) == 1
    with system.transaction() as tx:
        noted = available_update.read(tx.merge_deployment.checksum)
    assert noted and (noted.origin, noted.digest) == (first(system).origin.image, second.digest)
    assert upgrade(system, dry_run=True).details["staged"] is False
    before = images_refs(system)["layer"]
    system.events.clear()
    assert upgrade(system).next_boot
    assert (first(system).checksum, first(system).origin.image_digest) == (newer, second.digest)
    assert (
        len(registry.fetched[1]) == 4
    )  # the manifest, the configuration, libc's layer, the bill of materials
    assert len(images_refs(system)["layer"] - before) == 2
    titles = [event.title for event in system.events if hasattr(event, "title")]
    assert any(title.startswith("Importing 2 of ") for title in titles)


def test_an_older_image_is_no_upgrade(system: System, registry: Registry, image: Image):
    rebase_to(system, f"ostree-unverified-registry:{NAME}")
    old = registry.derive(image, "old", registries.layer([("usr/x", "x")]), created="2001-01-01T00:00:00Z")
    registry.names[NAME] = old.path
    before = state(system)
    with pytest.raises(Refused, match="older") as caught:
        upgrade(system)
    assert "--allow-downgrade" in str(caught.value.hint)
    assert state(system) == before
    assert upgrade(system, allow_downgrade=True).changed


def test_without_the_network(system: System, registry: Registry, image: Image):
    rebase_to(system, f"ostree-unverified-registry:{NAME}")
    registry.commit(NEW)
    registry.image("image")
    assert not upgrade(system, cache_only=True).changed
    assert not upgrade(system, cache_only=True, check=True).changed
    with pytest.raises(Refused, match="not in the cache"):
        rebase_offline(system, "ostree-unverified-registry:e.org/x")


def rebase_offline(system: System, text: str, **options) -> Result:
    options = DeployOptions(cache_only=True, **options)
    return system.run(rebase.rebase, Rebase(refspec=text, deploy=options))


def unplug(registry: Registry) -> None:
    """Have skopeo be asked for nothing any more."""

    def unreachable(words: list[str]) -> tuple[int, str]:
        raise AssertionError(words)

    registry.system.programs.results["skopeo"] = unreachable


@pytest.mark.parametrize("as_one_of_several", [False, True])
def test_what_was_downloaded_is_deployed_without_the_network(
    system: System, registry: Registry, image: Image, as_one_of_several: bool
):
    rebase_to(system, f"ostree-unverified-registry:{NAME}")
    newer = registry.commit(NEW)
    second = registry.image("image")
    digest = registry.wrap(second) if as_one_of_several else second.digest
    before = state(system)[:2]
    assert not upgrade(system, download_only=True).next_boot
    assert state(system)[:2] == before
    unplug(registry)
    checked = upgrade(system, cache_only=True, check=True)
    assert (checked.changed, checked.details["image"]["digest"]) == (True, digest)
    imported(system)
    assert upgrade(system, cache_only=True).next_boot
    assert imported(system).startswith("Importing 0 of ")
    assert (first(system).checksum, first(system).origin.image_digest) == (newer, digest)
    assert not upgrade(system, cache_only=True).changed


def test_an_image_of_another_name_that_was_downloaded(system: System, registry: Registry, image: Image):
    text = f"ostree-unverified-registry:{NAME}"
    system.run(rebase.rebase, Rebase(refspec=text, deploy=DeployOptions(download_only=True)))
    assert first(system).origin.image == ""
    unplug(registry)
    with pytest.raises(Refused, match="not in the cache") as caught:
        rebase_offline(system, f"{text}-next")
    assert NAME in caught.value.details[0]
    assert rebase_offline(system, text).next_boot
    assert first(system).origin.image == text
    assert deploy(system, image.digest, cache_only=True).changed is False


@pytest.mark.parametrize("missing", ["note", "manifest", "layer"])
def test_what_is_missing_of_an_image_is_told(system: System, registry: Registry, image: Image, missing: str):
    rebase_to(system, f"ostree-unverified-registry:{NAME}")
    registry.commit(NEW)
    second = registry.image("image")
    upgrade(system, download_only=True)
    unplug(registry)
    kept = system.state / "cache/images"
    layer = second.manifest["layers"][0]
    path, reason = {
        "note": (kept / "fetched.json", "no image"),
        "manifest": (kept / "blobs/sha256" / second.digest[7:], "its manifest"),
        "layer": (refs_of_layers(system) / second.config["rootfs"]["diff_ids"][0][7:], f"{layer['size']} B"),
    }[missing]
    path.unlink()
    before = state(system)
    with pytest.raises(Refused, match="not in the cache") as caught:
        upgrade(system, cache_only=True)
    assert reason in caught.value.details[0] and "--cache-only" in str(caught.value.hint)
    assert state(system) == before


def test_an_image_that_another_policy_has_accepted(system: System, registry: Registry, image: Image):
    rebase_to(system, f"ostree-unverified-registry:{NAME}")
    registry.commit(NEW)
    registry.image("image")
    upgrade(system, download_only=True)
    registry.set_policy(REJECTS)
    with pytest.raises(Refused, match="policy") as caught:
        upgrade(system, cache_only=True)
    assert caught.value.concerns_trust


def test_an_image_by_its_digest(system: System, registry: Registry, image: Image):
    rebase_to(system, f"ostree-unverified-registry:{NAME}")
    registry.commit(NEW)
    second = registry.image("second")
    registry.names[f"registry.example.org/os@{second.digest}"] = second.path
    assert deploy(system, second.digest).changed
    origin = first(system).origin
    assert (origin.image, origin.image_digest) == (f"ostree-unverified-registry:{NAME}", second.digest)
    with pytest.raises(UsageError, match="no revision of the image"):
        deploy(system, "13.1")
    fetched = len(registry.fetched)
    with pytest.raises(Refused, match="not in the cache"):
        deploy(system, image.digest, cache_only=True)
    assert len(registry.fetched) == fetched


def test_a_registry_that_has_another_image_for_a_digest(system: System, registry: Registry, image: Image):
    name = f"registry.example.org/os@sha256:{'0' * 64}"
    registry.names[name] = image.path
    assert image.digest in refused(system, f"ostree-unverified-registry:{name}", ExternalFailure).message


def test_layers_of_images_that_no_deployment_has_are_dropped(
    system: System, registry: Registry, image: Image
):
    rebase_to(system, unverified(image))
    assert images_refs(system)["manifest"]
    system.run(deployments.cleanup, Cleanup(pending=True))
    assert images_refs(system) == {"layer": set(), "manifest": set()}


def imported(system: System) -> str:
    """Return how many layers of how many were imported, since the last time."""
    titles = [event.title for event in system.events if hasattr(event, "title")]
    system.events.clear()
    return next(title for title in titles if title.startswith("Importing "))


def test_what_is_downloaded_is_imported_once(system: System, registry: Registry, image: Image):
    rebase_to(system, f"ostree-unverified-registry:{NAME}")
    registry.commit(NEW)
    second = registry.image("image")
    imported(system)
    before = images_refs(system)
    assert not upgrade(system, download_only=True).next_boot
    assert imported(system).startswith("Importing 2 of ")
    assert before["manifest"] < images_refs(system)["manifest"]
    upgrade(system, download_only=True)
    assert imported(system).startswith("Importing 0 of ")
    system.run(deployments.cleanup, Cleanup(rollback=True, base=True))
    assert upgrade(system).next_boot
    assert imported(system).startswith("Importing 0 of ")
    assert first(system).origin.image_digest == second.digest
    assert not system.repo.refs("apt-ostree/image/awaited")


def test_what_an_automatic_update_finds_is_imported_once(
    system: System, registry: Registry, image: Image, monkeypatch: pytest.MonkeyPatch
):
    plan = Result(changed=False, details={"transaction": None})  # building mounts file systems
    monkeypatch.setattr(automatic, "deploy", lambda *_words: plan)
    monkeypatch.setattr(automatic.updates, "note", lambda *_words: None)
    rebase_to(system, f"ostree-unverified-registry:{NAME}")
    registry.commit(NEW)
    registry.image("image")
    for expected in ("Importing 2 of ", "Importing 0 of "):
        system.events.clear()
        with system.transaction() as tx:
            automatic._System(tx, tx.settings.automatic).check()
        assert imported(system).startswith(expected)
    assert system.repo.refs("apt-ostree/image/awaited")


def test_an_image_is_awaited_until_a_branch_is_followed(system: System, registry: Registry, image: Image):
    add_remote(system.repo, "vendor", registry.repo)
    branch, text = f"vendor:{image_tree.REF}", f"ostree-unverified-registry:{NAME}"
    system.run(rebase.rebase, Rebase(refspec=text, deploy=DeployOptions(download_only=True)))
    awaited = images_refs(system)
    assert awaited["layer"] and system.repo.refs("apt-ostree/image/awaited")
    system.run(rebase.rebase, Rebase(refspec=branch, deploy=DeployOptions(dry_run=True)))
    assert images_refs(system) == awaited
    rebase_to(system, branch)
    assert not system.repo.refs("apt-ostree/image/awaited") and not images_refs(system)["layer"]


def refs_of_layers(system: System) -> Path:
    return system.place / "ostree/repo/refs/heads/apt-ostree/image/layer"


def kept_blobs(system: System) -> set[str]:
    return {path.name for path in (system.state / "cache/images/blobs/sha256").iterdir()}


def test_images_that_are_refused_do_not_fill_the_disk(system: System, registry: Registry, image: Image):
    for number in range(3):
        layer = registries.layer([(f"usr/x{number}", "x"), ("../x", str(number))])
        derived = registry.derive(image, f"derived{number}", layer)
        refused(system, unverified(derived))
        assert kept_blobs(system) == {path.name for path in (derived.path / "blobs/sha256").iterdir()} - {
            image.digest[7:], image.manifest["config"]["digest"][7:]
        }  # fmt: skip


def test_an_image_that_does_not_fit(
    system: System, registry: Registry, image: Image, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(space, "of", lambda _path: Space(available=1000, unused=1000, inodes=None))
    assert "does not fit" in refused(system, unverified(image)).message
    assert registry.fetched == []


def test_layers_are_kept_by_the_repository_alone(system: System, registry: Registry, image: Image):
    rebase_to(system, unverified(image))
    manifest = oci_image.read_manifest(image.blob(image.digest))
    assert kept_blobs(system) == {digest[7:] for digest in (manifest.digest, manifest.config.digest)}
    assert ocilayout.kept().missing(manifest.layers * 2) == sum(one.size for one in manifest.layers)
    diff_ids = image.config["rootfs"]["diff_ids"]
    layers = {one.digest: diff_id for one, diff_id in zip(manifest.layers, diff_ids, strict=True)}
    assert image_refs.blobs_in(system.repo) == layers
    (refs_of_layers(system) / diff_ids[0][7:]).unlink()
    del layers[manifest.layers[0].digest]
    assert image_refs.blobs_in(system.repo) == layers


def test_what_a_power_cut_leaves_of_a_fetch_counts_for_nothing(
    system: System, registry: Registry, image: Image
):
    layout = ocilayout.kept()
    digests = [row["digest"] for row in image.manifest["layers"]]
    standing = layout.standing_in(digests)
    standing.__enter__()
    assert all(map(layout.has, digests))
    assert not any(map(ocilayout.kept().has, digests))
    rebase_to(system, unverified(image))
    assert registry.fetched[0] >= set(digests)


def test_an_image_cannot_have_a_blob_taken_for_a_layer_that_is_here(
    system: System, registry: Registry, image: Image
):
    rebase_to(system, unverified(image))
    diff_ids = image.config["rootfs"]["diff_ids"]
    before = image_refs.blobs_in(system.repo)
    derived = registry.derive(image, "derived", registries.layer([("usr/x", "x")]))
    manifest, config = derived.manifest, derived.config
    config["rootfs"]["diff_ids"][-1] = diff_ids[0]
    manifest["config"] |= registry._add(derived.path, json.dumps(config).encode())
    forged = registry.finish(derived.path, manifest)
    failure = refused(system, unverified(forged), ExternalFailure)
    assert "not the content that the image's configuration says" in failure.message
    assert image_refs.blobs_in(system.repo) == before


def test_an_image_that_calls_a_layer_another_one(system: System, registry: Registry, image: Image):
    rebase_to(system, unverified(image))
    derived = registry.derive(image, "derived", registries.layer([("usr/x", "x")]))
    manifest, config = derived.manifest, derived.config
    config["rootfs"]["diff_ids"][:2] = reversed(config["rootfs"]["diff_ids"][:2])
    manifest["config"] |= registry._add(derived.path, json.dumps(config).encode())
    forged = registry.finish(derived.path, manifest)
    for _try in range(2):
        failure = refused(system, unverified(forged), ExternalFailure)
        assert "not the content that the image's configuration says" in failure.message


@pytest.mark.parametrize(
    "damage",
    [b"", bytes(100), b'{"manifests": [', b"[" * 100_000],
    ids=["empty", "zeros", "half", "deep"],
)
def test_an_index_that_a_power_cut_has_damaged(
    system: System, registry: Registry, image: Image, damage: bytes
):
    rebase_to(system, unverified(image))
    index = system.state / "cache/images/index.json"
    index.write_bytes(damage)
    before = kept_blobs(system)
    layout_of = ocilayout.kept()
    assert not index.exists() and kept_blobs(system) == before
    with pytest.raises(ExternalFailure, match="not fetched"):
        layout_of.named("fetched")


def test_an_image_that_cannot_be_followed_yet(system: System, registry: Registry, image: Image):
    rebase_to(system, f"ostree-unverified-registry:{NAME}")
    with system.open() as machine:
        deployment = machine.deployments().all[0]
        machine.stage(deployment.checksum, replace(deployment.origin, unconfigured="no licence"), deployment)
    with pytest.raises(Refused, match="no licence"):
        upgrade(system)


# --- trust


def test_what_nothing_verifies_has_to_say_so(system: System, registry: Registry, image: Image):
    refusal = refused(system, f"ostree-image-signed:docker://{NAME}")
    assert refusal.concerns_trust and "accepts anything" in refusal.message
    assert registry.fetched == []
    rebase_to(system, f"ostree-unverified-registry:{NAME}")
    assert [text for text in system.told("warning") if "was not verified" in text]


def test_the_policy_is_enforced(system: System, registry: Registry, image: Image):
    registry.set_policy(REJECTS)
    for text in (f"ostree-image-signed:docker://{NAME}", unverified(image)):
        refusal = refused(system, text)
        assert refusal.concerns_trust and "does not accept" in refusal.message
    registry.set_policy(SIGNED)
    refused(system, f"ostree-image-signed:docker://{NAME}")


def test_a_policy_that_cannot_be_read(system: System, registry: Registry, image: Image):
    (system.etc / "containers/policy.json").write_text("{")
    assert "cannot be read" in refused(system, f"ostree-image-signed:docker://{NAME}").message


def test_a_signed_commit_in_an_image(system: System, registry: Registry):
    with signer() as key:
        add_remote(system.repo, "vendor", registry.repo, verify=True)
        key.trusted_by(system.repo, "vendor")
        unsigned = registry.image("unsigned")
        text = f"ostree-remote-image:vendor:oci:{unsigned.path}"
        assert "no valid signature" in refused(system, text).message
        key.sign(registry.source, registry.source.resolve(image_tree.REF))
        signed = registry.image("signed")
        derived = registry.derive(signed, "derived", registries.layer([("usr/x", "x")]))
        refused(system, f"ostree-remote-image:vendor:oci:{derived.path}")
        rebase_to(system, f"ostree-remote-image:vendor:oci:{signed.path}")
    assert first(system).checksum == registry.source.resolve(image_tree.REF)
    assert "no remote" in refused(system, f"ostree-remote-image:other:oci:{signed.path}").message


def test_signatures_are_taken_from_each_image_of_a_commit(system: System, registry: Registry):
    commit = registry.source.resolve(image_tree.REF)
    with signer() as wrong, signer() as right:
        add_remote(system.repo, "vendor", registry.repo, verify=True)
        right.trusted_by(system.repo, "vendor")
        wrong.sign(registry.source, commit)
        planted = registry.image("planted")
        rebase_to(system, unverified(planted))  # so that the commit is here, signed by somebody else
        registry.source.handle.write_commit_detached_metadata(commit, None, None)
        right.sign(registry.source, commit)
        signed = registry.image("signed")
        rebase_to(system, f"ostree-remote-image:vendor:oci:{signed.path}")
        assert first(system).checksum == commit
        assert len(signatures.of_remote(system.repo, commit, "vendor")) == 2


# --- what is refused, and what fails


def hostile(path: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(path)
    made.type, made.linkname = kind, link
    return made


@pytest.mark.parametrize(
    "member",
    [
        hostile("../x"),
        hostile("usr/null", tarfile.CHRTYPE),
        hostile("usr/x", tarfile.LNKTYPE, "/etc/shadow"),
        hostile("home", tarfile.DIRTYPE),
        hostile("usr/.ostree-wh.x"),
    ],
)
def test_a_hostile_layer(system: System, registry: Registry, image: Image, member: tarfile.TarInfo):
    derived = registry.derive(image, "derived", registries.layer([("usr/x1", "x"), member]))
    refusal = refused(system, unverified(derived))
    assert refusal.concerns_trust and repr(member.name) in refusal.details[0]


def test_a_tree_without_kernel_or_packages(system: System, registry: Registry, image: Image):
    kernel = registry.derive(
        image, "one", registries.layer([(f"usr/lib/modules/.wh.{image_tree.KERNEL}", "")])
    )
    assert "no kernel" in refused(system, unverified(kernel)).message
    database = registry.derive(image, "two", registries.layer([("usr/lib/sysimage/.wh.dpkg", "")]))
    assert "no packages of Debian" in refused(system, unverified(database)).message


def test_a_tree_that_lacks_what_boots(system: System, registry: Registry):
    kernel = (f"usr/lib/modules/{image_tree.KERNEL}/vmlinuz", "kernel")
    database = ("usr/lib/sysimage/dpkg/status", STATUS)
    tops = [hostile(name, tarfile.DIRTYPE) for name in layout.TOP_DIRECTORIES]
    link = hostile("ostree", tarfile.SYMTYPE, "sysroot/ostree")
    whole = [kernel, database, *tops, link, ("etc/x", "x"), ("usr/lib/os-release", "ID=debian\n")]
    for number, name in enumerate(("sysroot", "tmp", "ostree", "etc/x", "usr/lib/os-release")):
        members = [one for one in whole if (one[0] if isinstance(one, tuple) else one.name) != name]
        made = registry.scratch(f"lacks{number}", registries.layer(members))
        assert f"has no /{name.removesuffix('/x')}," in refused(system, unverified(made)).message
    assert rebase_to(system, unverified(registry.scratch("whole", registries.layer(whole)))).changed


def test_a_kernel_that_is_a_link(system: System, registry: Registry, image: Image):
    kernel = hostile(f"usr/lib/modules/{image_tree.KERNEL}/vmlinuz", tarfile.SYMTYPE, "/etc/shadow")
    derived = registry.derive(image, "derived", registries.layer([kernel]))
    assert "no kernel" in refused(system, unverified(derived)).message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no packages"),
        ("Package: a\n\n", "cannot be read"),
        ("Package: a\nStatus: \n\n", "cannot be read"),
        ("Status: install ok installed\nVersion: 1\nArchitecture: all\n\n", "cannot be read"),
        (STATUS.replace("Version: 1", "Version: 1\x1b[2J"), "of no package"),
        ("Package: a\n" * 1000, "bytes"),
    ],
    ids=["empty", "without a state", "empty state", "without a name", "escape sequence", "large"],
)
def test_a_database_of_packages_that_is_none(
    system: System,
    registry: Registry,
    image: Image,
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    message: str,
):
    monkeypatch.setattr(importing, "_LARGEST_STATUS", 10_000)
    layer = registries.layer([("usr/lib/sysimage/dpkg/status", content)])
    assert message in refused(system, unverified(registry.derive(image, "derived", layer))).message


def test_a_database_that_is_a_link(system: System, registry: Registry, image: Image):
    link = hostile("usr/lib/sysimage/dpkg/status", tarfile.SYMTYPE, "status-old")
    derived = registry.derive(image, "derived", registries.layer([link]))
    assert "no packages" in refused(system, unverified(derived)).message


def test_a_layer_that_reaches_through_a_link_of_another(system: System, registry: Registry, image: Image):
    one = registry.derive(image, "one", registries.layer([hostile("usr/lib/x", tarfile.SYMTYPE, "/etc")]))
    two = registry.derive(one, "two", registries.layer([("usr/lib/x/motd", "x")]))
    refusal = refused(system, unverified(two))
    assert refusal.concerns_trust and "'usr/lib/x'" in refusal.details[0]


@pytest.mark.parametrize("compression", oci.Compression)
@pytest.mark.parametrize("place", ["header", "content", "end"])
def test_a_layer_that_cannot_be_decompressed(tmp_path: Path, compression: oci.Compression, place: str):
    plain = registries.layer([("usr/x", "".join(map(str, range(300_000)))), ("usr/y", "y")])
    written = ociblobs.ImageLayout(tmp_path / "made")
    with written.writing(compression) as blob:
        blob.write(plain)
    data = bytearray((written.path / "blobs/sha256" / blob.stored_digest[7:]).read_bytes())
    at = {"header": 30, "content": len(data) // 2, "end": len(data) - 6}[place]
    data[at] ^= 0xFF
    damaged = written.add(bytes(data), compression.media_type)
    opened = ocilayout.KeptLayout(written.path).opened(damaged, compression, oci.digest_of(plain))
    with pytest.raises((ExternalFailure, Unfit)), opened as read:
        for member in tarreader.members(read):
            assert member.header


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "vax"}, "is for vax"),
        ({"architecture": "\x1b[2J"}, "architecture is '\\x1b[2J'"),
        ({"architecture": None}, "architecture is None"),
        ({"config": {"Labels": {"org.opencontainers.image.version": "1\ud800"}}}, "version is '1\\ud800'"),
        ({"config": {"Labels": {"org.opencontainers.image.version": "1\x1b[2J"}}}, "version is '1\\x1b[2J'"),
        ({"os": "windows"}, "windows"),
        ({"rootfs": None}, "name its layers"),
        ({"created": "yesterday"}, "no time"),
        ({"config": {"Labels": {"ostree.final-diffid": "sha256:0"}}}, "encapsulated"),
        ({"rootfs": {"diff_ids": [f"sha256:{'0' * 64}"]}}, "names 1 layers"),
    ],
)
def test_configurations_that_are_refused(
    system: System, registry: Registry, image: Image, changes: dict, message: str
):
    derived = registry.derive(image, "derived", registries.layer([("usr/x", "x")]), **changes)
    assert message in refused(system, unverified(derived)).message


def test_an_image_of_another_format(system: System, registry: Registry, image: Image):
    manifest = image.manifest | {"mediaType": "application/vnd.docker.distribution.manifest.v2+json"}
    docker = registry.finish(image.path, manifest)
    assert "skopeo copy" in str(refused(system, unverified(docker)).hint)


def test_a_layer_that_is_not_what_the_configuration_says(system: System, registry: Registry, image: Image):
    wrong = image.config["rootfs"]
    wrong["diff_ids"] = [*wrong["diff_ids"], f"sha256:{'0' * 64}"]
    derived = registry.derive(image, "derived", registries.layer([("usr/x", "x")]), rootfs=wrong)
    assert "not the content" in str(refused(system, unverified(derived), ExternalFailure))


def test_a_commit_that_the_image_is_not_of(system: System, registry: Registry, image: Image):
    manifest = image.manifest
    other = registry.commit(NEW)
    data = registry.image("other").manifest["annotations"]
    manifest["annotations"] = data  # a tree of its own, and the commit of another one
    forged = registry.finish(image.path, manifest)
    rebase_to(system, unverified(forged))
    assert first(system).checksum != other
    assert layout.META_IMAGE in system.repo.metadata(first(system).checksum)
    manifest["annotations"] = data | {oci.COMMIT: "0" * 64}
    forged = registry.finish(image.path, manifest)
    with pytest.raises(ExternalFailure, match="another one than it says"):
        upgrade(system)


def test_a_blob_that_is_damaged_is_fetched_again(system: System, registry: Registry, image: Image):
    digest = image.manifest["layers"][0]["digest"]
    kept = system.state / "cache/images/blobs/sha256"
    kept.mkdir(parents=True)
    (kept / digest[7:]).write_bytes(b"damaged")
    assert "try again" in str(refused(system, unverified(image), ExternalFailure).hint)
    assert rebase_to(system, unverified(image)).changed


@pytest.mark.parametrize(
    "point",
    [
        "import.fetched",
        "import.layer-written",
        "import.before-commit",
        "import.imported",
        "repo.before-commit",
    ],
)
def test_what_fails_changes_nothing(
    system: System, image: Image, monkeypatch: pytest.MonkeyPatch, point: str
):
    monkeypatch.setenv("APT_OSTREE_FAILPOINT", f"{point}=error")
    before = state(system)
    with pytest.raises((OSError, ExternalFailure)):
        rebase_to(system, unverified(image))
    monkeypatch.delenv("APT_OSTREE_FAILPOINT")
    assert state(system) == before
    assert rebase_to(system, unverified(image)).changed


def test_what_fails_after_the_import_need_not_be_fetched_again(
    system: System, registry: Registry, image: Image, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("APT_OSTREE_FAILPOINT", "import.awaited=error")
    before = state(system)[:2]
    with pytest.raises(OSError):
        rebase_to(system, unverified(image))
    monkeypatch.delenv("APT_OSTREE_FAILPOINT")
    assert state(system)[:2] == before
    assert rebase_to(system, unverified(image)).changed
    assert registry.fetched[1:] == [set()]


def in_repository(system: System) -> set[str]:
    """Return the objects of the repository, and what is being written into it."""
    first(system)  # it is there from the first use on
    repo = system.place / "ostree/repo"
    tops = (repo / "objects", *(repo / "tmp").glob("staging-*"))
    return {str(path.relative_to(repo)) for top in tops for path in top.rglob("*") if path.is_file()} - {
        str(path.relative_to(repo)) for path in (repo / "tmp").glob("*-lock")
    }


@pytest.mark.parametrize("point", ["import.layer-written:3", "import.before-commit"])
def test_what_an_import_that_fails_has_written_can_be_removed(
    system: System, image: Image, monkeypatch: pytest.MonkeyPatch, point: str
):
    before = in_repository(system)
    name, _, number = point.partition(":")
    monkeypatch.setenv("APT_OSTREE_FAILPOINT", f"{name}=error" + (f":{number}" if number else ""))
    refused(system, unverified(image), OSError)
    monkeypatch.delenv("APT_OSTREE_FAILPOINT")
    system.run(deployments.cleanup, Cleanup(base=True))  # libostree keeps it for the next try
    assert not in_repository(system) - before
    assert rebase_to(system, unverified(image)).changed


def test_a_disk_that_is_full_while_a_layer_is_written(
    system: System, registry: Registry, image: Image, monkeypatch: pytest.MonkeyPatch
):
    def full(*_words: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = in_repository(system)
    with monkeypatch.context() as patched:
        patched.setattr(importing.LayerWriter, "_write", full)
        refused(system, unverified(image), OSError)
    system.run(deployments.cleanup, Cleanup(base=True))
    assert not in_repository(system) - before
    assert rebase_to(system, unverified(image)).changed


def test_a_registry_that_goes_away_and_comes_back(system: System, registry: Registry, image: Image):
    skopeo_of, kept = registry.skopeo, system.state / "cache/images"
    rows = (image.manifest["config"], *image.manifest["layers"])
    arrived = [row["digest"][7:] for row in rows[:3]]

    def goes_away(words: list[str]) -> tuple[int, str]:
        if "copy" not in words:
            return skopeo_of(words)
        for name in arrived:
            shutil.copy(image.path / "blobs/sha256" / name, kept / "blobs/sha256")
        (kept / "oci-put-blob1").write_bytes(b"half of one")
        return 1, "connection reset by peer"

    system.programs.results["skopeo"] = goes_away
    text = f"ostree-unverified-registry:{NAME}"
    failure = refused(system, text, ExternalFailure)
    assert "connection reset" in failure.details[0]
    assert {path.name for path in kept.iterdir()} == {"blobs"} and kept_blobs(system) == set(arrived)
    system.programs.results["skopeo"] = skopeo_of
    rebase_to(system, text)
    assert registry.fetched == [{row["digest"] for row in rows[3:]} | {image.digest}]


def test_a_blob_that_was_cut_off(system: System, registry: Registry, image: Image):
    rebase_to(system, f"ostree-unverified-registry:{NAME}")
    registry.commit(NEW)
    second = registry.image("image")
    upgrade(system, download_only=True)
    digest = oci_image.read_manifest(second.blob(second.digest)).config.digest
    path = system.state / "cache/images/blobs/sha256" / digest[7:]
    path.write_bytes(path.read_bytes()[:10])
    before = state(system)[:2]
    with pytest.raises(ExternalFailure, match="damaged"):
        upgrade(system, cache_only=True)
    assert state(system)[:2] == before and not path.exists()
    assert upgrade(system).changed and registry.fetched[-1] == {digest}


def test_an_image_that_is_not_there(system: System, registry: Registry):
    failure = refused(system, "ostree-unverified-registry:e.org/none", ExternalFailure)
    assert "no such image" in failure.details[0] and "skopeo inspect docker://e.org/none" in str(failure.hint)


def test_a_registry_that_does_not_answer(system: System, registry: Registry, monkeypatch: pytest.MonkeyPatch):
    limits = []

    def run(*_words: object, timeout: float | None = None, **_how: object) -> object:
        limits.append(timeout)
        raise ExternalFailure("cannot look: no result within 300 seconds")

    monkeypatch.setattr(process, "run", run)
    refused(system, "ostree-unverified-registry:e.org/none", ExternalFailure)
    assert limits and limits[0]


# --- manifests


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        b"{}",
        b'{"layers": []}',
        b'{"layers": [1]}',
        b'{"layers": [{"digest": "md5:1", "size": 1}]}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_manifest(manifest: bytes):
    with pytest.raises(ValueError):
        oci_image.read_manifest(manifest)


def test_times():
    seconds = oci_image._seconds
    assert (seconds(None), seconds("0001-01-01T00:00:00Z")) == (0, 0)
    assert seconds("1970-01-02T00:00:00.123456789+01:00") == 82800


def test_refs_of_a_repository_without_images(system: System):
    image_refs.sync(system.repo, [""])
    assert images_refs(system) == {"layer": set(), "manifest": set()}
