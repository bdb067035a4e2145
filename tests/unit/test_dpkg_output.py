"""What dpkg and libapt say, in words that mean something to a user."""

from pathlib import Path

import pytest

from apt_ostree.system.apt import install

SCRATCH = Path("/sysroot/ostree/apt-ostree/work/build-igknnehn")
LABELS = {
    "5746ac09bd52b55df19d53aa299d8e717a3b54a2.deb": "fx-overwrite 1.0",
    "fx-set-40_1%3a1.0_all.deb": "fx-set-40 1:1.0",
    "7-zip_1_all.deb": "7-zip 1",
}
HASHED = f"{SCRATCH}/local/./5746ac09bd52b55df19d53aa299d8e717a3b54a2.deb"


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("fx-fail: installed fx-fail package", "fx-fail: installed fx-fail package"),
        (
            f"error processing archive {HASHED} (--unpack):",
            "error processing archive fx-overwrite 1.0 (--unpack):",
        ),
        (f"{HASHED}: trying to overwrite '/usr/a.deb'", "fx-overwrite 1.0: trying to overwrite '/usr/a.deb'"),
        (
            "Preparing to unpack .../5746ac09bd52b55df19d53aa299d8e717a3b54a2.deb ...",
            "Preparing to unpack fx-overwrite 1.0 ...",
        ),
        (
            f"{SCRATCH}/local/apt-dpkg-install-eGfB1h/42-fx-set-40_1%3a1.0_all.deb",
            "fx-set-40 1:1.0",
        ),
        ("Preparing to unpack .../7-7-zip_1_all.deb ...", "Preparing to unpack 7-zip 1 ..."),
        ("Preparing to unpack .../7-zip_1_all.deb ...", "Preparing to unpack 7-zip 1 ..."),
        ("Preparing to unpack .../other_1_all.deb ...", "Preparing to unpack .../other_1_all.deb ..."),
        (f"Sub-process {SCRATCH}/dpkg returned an error code", "Sub-process dpkg returned an error code"),
    ],
)
def test_packages_stand_for_archives(told, shown):
    assert install.readable(told, SCRATCH, LABELS.get) == shown
