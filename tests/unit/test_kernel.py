"""Kernel packages: which they are, and which kernel of several a tree keeps."""

from __future__ import annotations

import apt_pkg
import pytest

from apt_ostree.model.kernel import is_image, is_kernel, kept_images

MB = 1_000_000


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("linux-image-amd64", True),
        ("linux-image-6.12.9-x64v3-xanmod1", True),
        ("linux-image-current-meson64", True),  # Armbian: no number in the name of the kernel itself
        ("proxmox-kernel-6.8.12-4-pve-signed", True),
        ("proxmox-default-kernel", True),
        ("pve-kernel-6.2.16-3-pve", True),
        ("linux-image-6.12.9-amd64-dbg", False),
        ("linux-image-amd64-signed-template", False),
        ("proxmox-default-headers", False),
        ("linux-headers-6.12.9-amd64", False),
        ("linux-base", False),
        ("nginx", False),
    ],
)
def test_a_kernel_package_is_known_by_its_name(name, kernel):
    assert is_kernel(name) is kernel
    assert is_image(name, 100 * MB) is kernel
    assert not is_image(name, 20_000)  # it depends on one


IMAGES = {"linux-image-6.9.0-amd64": "6.9.7-1", "linux-image-6.12.0-amd64": "6.12.1-1"}


@pytest.mark.parametrize(
    ("images", "requested", "kept"),
    [
        (IMAGES, (), {"linux-image-6.12.0-amd64"}),  # by the order of dpkg, not of letters
        (IMAGES, ("linux-image-6.9.0-amd64", "nginx"), {"linux-image-6.9.0-amd64"}),
        (IMAGES, tuple(IMAGES), set(IMAGES)),
        ({**IMAGES, "proxmox-kernel-6.14.8-pve": "6.14.8-2"}, (), {"proxmox-kernel-6.14.8-pve"}),
        ({"linux-image-a": "1~rc1-1", "linux-image-b": "1-1"}, (), {"linux-image-b"}),
        ({"linux-image-a": "1", "linux-image-b": "1"}, (), {"linux-image-b"}),
        ({}, ("linux-image-a",), set()),
    ],
)
def test_the_kernel_that_was_asked_for_stays_or_else_the_newest(images, requested, kept):
    apt_pkg.init_system()
    assert kept_images(images, requested, apt_pkg.version_compare) == kept
