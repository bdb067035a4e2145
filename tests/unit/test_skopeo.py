"""The adapter of skopeo, with a program of that name that does what a registry makes it do."""

from __future__ import annotations

from pathlib import Path

import pytest

from apt_ostree.errors import ExternalFailure
from apt_ostree.model.image_reference import ImageReference
from apt_ostree.system import process, skopeo
from apt_ostree.system.ocilayout import KeptLayout

IMAGE = ImageReference.parse("ostree-unverified-registry:registry.example.org/os:13")
DIGESTS = [f"sha256:{letter * 64}" for letter in "ab"]
BLOBS = "blobs/sha256"


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeptLayout:
    """An empty layout, beside the program, whose looks are frequent."""
    path = f"{tmp_path}:{process.BASE_ENVIRONMENT['PATH']}"
    monkeypatch.setattr(process, "BASE_ENVIRONMENT", {**process.BASE_ENVIRONMENT, "PATH": path})
    monkeypatch.setattr(process, "_BETWEEN_LOOKS", 0.02)
    (tmp_path / "layout" / BLOBS).mkdir(parents=True)
    return KeptLayout(tmp_path / "layout")


def write_program(layout: KeptLayout, *lines: str) -> None:
    """Have skopeo begin two blobs and do this, in the layout."""
    begun = [f"echo Copying blob {digest}" for digest in DIGESTS]
    program = layout.path.parent / "skopeo"
    program.write_text("\n".join(["#!/bin/sh -e", f"cd {layout.path}", *begun, *lines]) + "\n")
    program.chmod(0o755)


def test_a_registry_that_sends_nothing_any_more(layout: KeptLayout):
    whole, other = DIGESTS
    write_program(layout, f"echo x > {BLOBS}/{whole[7:]}", "echo x > oci-put-blob1", "exec sleep 60")
    with pytest.raises(ExternalFailure) as caught:
        skopeo.fetch(IMAGE, layout, patience=0.3)
    assert "registry.example.org has sent nothing for 0.3 seconds" in caught.value.message
    assert [other in line for line in caught.value.details] == [True]
    assert "StallTimeout" in str(caught.value.hint)
    layout.drop_leftovers()
    assert [path.name for path in layout.path.iterdir()] == ["blobs"] and layout.has(whole)


def test_one_that_sends_slowly_may_take_its_time(layout: KeptLayout):
    step = "for n in 1 2 3 4 5 6 7 8 9 10; do echo $n >> oci-put-blob1; sleep 0.1; done"
    write_program(layout, step, f"mv oci-put-blob1 {BLOBS}/{DIGESTS[0][7:]}")
    skopeo.fetch(IMAGE, layout, patience=0.5)
    assert layout.has(DIGESTS[0])


def test_a_disk_has_no_such_limit(layout: KeptLayout):
    write_program(layout, "sleep 0.5")
    skopeo.fetch(ImageReference.parse("ostree-unverified-image:oci:/srv/os"), layout, patience=0.1)


def test_a_registry_that_does_not_tell_what_a_name_stands_for(layout: KeptLayout):
    write_program(layout, "exec sleep 60")
    with pytest.raises(ExternalFailure, match="no result within"):
        skopeo.manifest(IMAGE, patience=0.2)
