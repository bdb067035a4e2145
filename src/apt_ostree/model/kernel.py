"""Kernel packages: which contain a kernel, which depend on the newest one, and which one a tree keeps.

A tree has one kernel, as ostree boots an arbitrary one of several. Names and sizes decide, since an archive
tells nothing else before it is downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import cmp_to_key

#: Debian and most others; Proxmox. Not what belongs to a kernel without being one.
_NAME = re.compile(
    r"(linux-image-|(proxmox|pve)-(default-)?kernel)(?!.*-(dbg|dbgsym|headers|signed-template)$)"
)
#: Bytes of the installed package; a package that only depends on a kernel has a few thousand.
_SMALLEST_IMAGE = 1_000_000


def is_kernel(name: str) -> bool:
    """Return whether a package contains a kernel or depends on one; these take effect with a reboot."""
    return bool(_NAME.match(name))


def is_image(name: str, size: int) -> bool:
    """Return whether a package contains a kernel.

    size: of the installed package, in bytes.
    """
    return is_kernel(name) and size >= _SMALLEST_IMAGE


def kept_images(
    images: Mapping[str, str], requested: Collection[str], compare: Callable[[str, str], int]
) -> frozenset[str]:
    """Return the kernels that stay: those that were asked for, or else the newest one.

    images: name -> version of the package.
    requested: names of packages that were asked for, and of what these need.
    compare: compares versions, as strcmp(3) does strings.
    """
    asked_for = frozenset(name for name in images if name in requested)
    if asked_for or not images:
        return asked_for
    version_of = cmp_to_key(compare)
    return frozenset([max(images, key=lambda name: (version_of(images[name]), name))])
