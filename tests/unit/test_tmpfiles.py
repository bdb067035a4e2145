"""State below /var as tmpfiles.d lines."""

import pytest

from apt_ostree.model import layout, tmpfiles
from apt_ostree.model.tmpfiles import Entry, Treatment


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("var/lib/foo", Treatment.KEEP),
        ("var/lib/foo/data.db", Treatment.KEEP),
        ("var/lib/dpkg", Treatment.SKIP),
        ("var/lib/dpkg/status", Treatment.SKIP),
        ("var/lib/dpkg-other", Treatment.KEEP),
        ("var/tmp/x", Treatment.SKIP),
        ("var/run", Treatment.SKIP),
        ("var/log/nginx", Treatment.DIRECTORIES),
        ("var/cache/apt/archives/x.deb", Treatment.DIRECTORIES),
        ("var/lib/apt/lists/y", Treatment.DIRECTORIES),
        ("var/lib/foo/data.dpkg-old", Treatment.DIRECTORIES),
        ("var/lib/apt-ostree/state.db", Treatment.SKIP),
    ],
)
def test_treatment(path, expected):
    assert tmpfiles.treatment(path) is expected


def test_lines():
    assert tmpfiles.line(Entry("d", "/var/lib/a", "2775", "root", "mail")) == "d /var/lib/a 2775 root mail -"
    assert tmpfiles.line(Entry("L", "/var/m", argument="../mail")) == "L /var/m - - - - ../mail"
    odd = tmpfiles.line(Entry("C", '/var/a b%"c', "0644", "root", "root", "/usr/share/factory/var/a b"))
    assert odd == "C /var/a\\x20b%%\\x22c 0644 root root - /usr/share/factory/var/a\\x20b"


def test_merge_is_sorted_without_repeats_and_idempotent():
    first = [
        Entry("d", "/var/lib/b", "0755", "root", "root"),
        Entry("d", "/var/lib/a", "0755", "root", "root"),
    ]
    text = tmpfiles.merge("", first)
    assert [line.split()[1] for line in text.splitlines()[1:]] == ["/var/lib/a", "/var/lib/b"]
    assert tmpfiles.merge(text, first) == text
    assert tmpfiles.merge(text, []) == text
    changed = tmpfiles.merge(text, [Entry("d", "/var/lib/a", "0700", "a", "a")])
    assert "d /var/lib/a 0700 a a -" in changed
    assert changed.count("/var/lib/a ") == 1


def test_merge_leaves_out_what_is_gone():
    paths = ['/var/lib/a b%"c', "/var/lib/a"]
    text = tmpfiles.merge("", [Entry("d", path, "0755", "root", "root") for path in paths])
    kept = tmpfiles.merge(text, [], gone=lambda path: path == paths[0])
    assert [line.split()[1] for line in kept.splitlines()[1:]] == ["/var/lib/a"]
    assert tmpfiles.merge(text, [], gone=lambda _path: False) == text


def test_described_paths_without_specifiers():
    text = "# c\nd /run/x 0755\nL+ /var/lib/dpkg - - - - x\nd /var/log/%m\n"
    text += "z /var/z\nx /tmp/a\nQ /var/q/\nC! /var/c\n"
    assert tmpfiles.described(text) == {"/run/x", "/var/lib/dpkg", "/var/q", "/var/c"}


def test_layout_makes_all_targets_and_relative_links():
    text = tmpfiles.layout_text()
    made = tmpfiles.described(text)
    for path in [*layout.STATE_DIRECTORIES, *(f"/{path}" for path in layout.SYSIMAGE_LINKS)]:
        assert path in made
    assert "L+ /var/lib/dpkg - - - - ../../usr/lib/sysimage/dpkg\n" in text
    assert "d /var/roothome :0700 :root :root -\n" in text


def test_merge_of_a_quoted_line_from_ours_keeps_it():
    text = tmpfiles.merge("", [Entry("d", "/var/lib/a b", "0755", "root", "root")])
    assert tmpfiles.merge(text, [Entry("d", "/var/lib/c", "0755", "root", "root")]).count("a\\x20b") == 1
