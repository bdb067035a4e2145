"""What apt's simulation says."""

from apt_ostree.model.package import Package
from apt_ostree.system import mmdebstrap

OUTPUT = """\
I: simulate installing remaining packages inside the chroot...
Inst jq (1.7.1-3 Debian:13.8/stable [amd64])
Inst apt [3.0.3] (3.0.4 Debian:13.8/stable, Debian-Security:13/stable-security [amd64])
Inst tzdata (2026f-0+deb13u1 Debian:13.8/stable [all]) []
Conf jq (1.7.1-3 Debian:13.8/stable [amd64])
Remv old [1.0]
"""


def test_packages_that_a_simulation_names():
    assert mmdebstrap.parse_simulation(OUTPUT.splitlines()) == (
        Package("apt", "3.0.4", "amd64"),
        Package("jq", "1.7.1-3", "amd64"),
        Package("tzdata", "2026f-0+deb13u1", "all"),
    )
