"""Lines of sources.list(5) and Release files."""

from apt_ostree.model import release
from apt_ostree.model.release import Source

DEBIAN = (
    "Origin: Debian\nSuite: stable\nCodename: trixie\nVersion: 13.8\nDate: Sat, 21 Nov 2026 09:15:44 UTC\n"
)
VENDOR = "Origin: A Vendor\nSuite: stable\nDate: Mon, 23 Nov 2026 01:00:00 +0000\n"


def test_lines_of_sources():
    line = "deb [signed-by=/a.gpg trusted=yes] https://example.org/apt stable main extra"
    source = release.parse_source(line)
    assert source == Source(
        "signed-by=/a.gpg trusted=yes", "https://example.org/apt", "stable", ("main", "extra")
    )
    assert release.source_line(source) == line
    assert release.source_line(Source("", "file:/srv", "s", ("main",))) == "deb file:/srv s main"
    assert release.parse_source("# deb x y z") is None
    assert release.parse_source("deb-src x y z") is None


def test_each_source_is_described_by_its_own_release_file():
    releases = {
        "example.org_debian_dists_trixie_InRelease": DEBIAN,
        "_srv_my%5fapt_dists_stable_InRelease": VENDOR,
    }
    sources = [
        Source("", "https://example.org/debian/", "trixie", ("main", "contrib")),
        Source("", "file:/srv/my_apt", "stable", ("main",)),
        Source("", "https://example.org/gone", "trixie", ("main",)),
    ]
    assert release.describe(releases, sources) == (
        "A-Vendor stable main - 2026-11-23T01:00:00Z",
        "Debian trixie contrib 13.8 2026-11-21T09:15:44Z",
        "Debian trixie main 13.8 2026-11-21T09:15:44Z",
    )
