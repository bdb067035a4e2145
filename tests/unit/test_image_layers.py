"""The cut of an image into layers: nothing is lost or doubled, and little moves to another layer later."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import assume, given
from hypothesis import strategies as st

from apt_ostree.model import image_layers, image_sources
from apt_ostree.model.image_layers import Layer

SOURCES = [f"source{number}" for number in range(150)]
MOST = st.integers(image_layers.LEAST, image_layers.MOST)
#: source -> bytes of its one file
WEIGHTS = st.dictionaries(st.sampled_from(SOURCES), st.integers(0, 10**6), max_size=150)
PLACES = st.sampled_from(
    [
        "etc/fstab", "etc", "usr/lib/sysimage/dpkg/status", "usr/lib/modules/6.1/vmlinuz",
        "usr/lib/modules/6.1/initramfs.img", "usr/lib/modules/6.1/kernel/initramfs.ko", "var", "boot",
        "usr/lib/tmpfiles.d/apt-ostree-var.conf", "bin", "usr/share/mime/mime.cache",
    ]
)  # fmt: skip


def cut(weights: Mapping[str, int], most: int, before: tuple[Layer, ...] = ()) -> tuple[Layer, ...]:
    """Cut a tree in which each source has one file."""
    sizes = {f"usr/share/{source}": size for source, size in weights.items()}
    apart = image_layers.sources_apart(layer.name for layer in before)
    return image_layers.cut(sizes, lambda path: path.removeprefix("usr/share/"), most, apart)


def places(layers: tuple[Layer, ...]) -> dict[str, str]:
    return {path: layer.name for layer in layers for path in layer.paths}


@given(WEIGHTS, st.sets(PLACES), MOST, st.sets(st.sampled_from(SOURCES)))
def test_each_path_is_in_exactly_one_layer(weights, others, most, apart):
    sizes = {f"usr/share/doc/{source}": size for source, size in weights.items()} | dict.fromkeys(others, 7)
    layers = image_layers.cut(
        sizes, lambda p: p.removeprefix("usr/share/doc/") if "doc/" in p else "", most, apart
    )
    paths = [path for layer in layers for path in layer.paths]
    assert sorted(paths) == sorted(sizes)
    assert len(layers) < most  # one is left for the bill of materials
    assert len({layer.name for layer in layers}) == len(layers)
    assert sum(layer.size for layer in layers) == sum(sizes.values())
    assert all(list(layer.paths) == sorted(layer.paths) and layer.paths for layer in layers)


@given(WEIGHTS, MOST)
def test_the_order_of_the_paths_does_not_matter(weights, most):
    assert cut(dict(reversed(weights.items())), most) == cut(weights, most)


@given(WEIGHTS, MOST, st.data())
def test_nothing_moves_while_packages_grow_a_little(weights, most, data):
    before = cut(weights, most)
    growth = st.integers(0, 99)
    grown = {source: size + size * data.draw(growth) // 100 for source, size in weights.items()}
    assert places(cut(grown, most, before)) == places(before)


@given(WEIGHTS, MOST, st.sampled_from(SOURCES), st.integers(0, 10**6))
def test_a_package_that_comes_moves_at_most_the_one_whose_layer_it_takes(weights, most, source, size):
    assume(source not in weights)
    before = cut(weights, most)
    after = places(cut({**weights, source: size}, most, before))
    moved = {path for path, name in places(before).items() if after[path] != name}
    assert len(moved) <= 1
    assert all(after[path].startswith("bucket ") for path in moved)


@given(WEIGHTS, MOST, st.data())
def test_a_package_that_goes_moves_at_most_the_one_that_gets_its_layer(weights, most, data):
    assume(weights)
    gone = data.draw(st.sampled_from(sorted(weights)))
    before = cut(weights, most)
    after = places(cut({s: n for s, n in weights.items() if s != gone}, most, before))
    moved = {path for path, name in after.items() if places(before)[path] != name}
    assert len(moved) <= 1
    assert all(after[path].startswith("source ") for path in moved)


def test_the_biggest_sources_have_layers_of_their_own():
    weights = {source: number for number, source in enumerate(SOURCES)}
    layers = cut(weights, 64)
    own = {layer.name for layer in layers if layer.name.startswith("source ")}
    assert own == {f"source {source}" for source in SOURCES[-42:]}
    assert len([layer for layer in layers if layer.name.startswith("bucket ")]) == 16
    assert [layer.sources for layer in layers if layer.name == "source source149"] == [("source149",)]


def test_a_source_that_has_become_twice_as_big_takes_a_layer():
    before = cut({"small": 1, **dict.fromkeys(SOURCES[:42], 100)}, 64)
    assert places(before)["usr/share/small"].startswith("bucket ")
    same = cut({"small": 200, **dict.fromkeys(SOURCES[:42], 100)}, 64, before)
    taken = cut({"small": 201, **dict.fromkeys(SOURCES[:42], 100)}, 64, before)
    assert places(same) == places(before)
    assert places(taken)["usr/share/small"] == "source small"
    anew = cut({"small": 150, **dict.fromkeys(SOURCES[:42], 100)}, 64)
    assert places(anew)["usr/share/small"] == "source small"


def test_what_changes_for_its_own_reasons_is_apart():
    owned = {
        "usr/lib/modules/6.1/kernel/fs/ext4.ko": "linux-signed",
        "usr/share/doc/linux-image/changelog": "linux-signed",
        "usr/lib/tmpfiles.d": "systemd",
        "usr/lib/systemd/systemd": "systemd",
        "usr/lib/sysimage/dpkg/info/systemd.md5sums": "systemd",
        "usr/lib/sysimage/dpkg/info/linux-image.list": "linux-signed",
    }
    paths = {
        "usr/lib/modules/6.1/vmlinuz": "kernel",
        "usr/lib/modules/6.1/kernel/fs/ext4.ko": "kernel",
        "usr/lib/modules/6.1/kernel/initramfs.ko": "kernel",
        "usr/share/doc/linux-image/changelog": "kernel",
        "usr/lib/modules/6.1/initramfs.img": "initramfs",
        "usr/lib/modules/6.1/initramfs.list": "initramfs",
        "usr/lib/sysimage/dpkg/status": "dpkg",
        "usr/lib/sysimage/dpkg/info/format": "dpkg",
        "usr/lib/sysimage/dpkg/info/systemd.md5sums": "source systemd",
        "usr/lib/sysimage/dpkg/info/linux-image.list": "kernel",
        "etc/fstab": "etc",
        "usr/lib/systemd/systemd": "source systemd",
        "usr/lib/tmpfiles.d/apt-ostree-var.conf": "generated",
        "usr/lib/tmpfiles.d/new.conf": "source systemd",
        "bin": "generated",
        "tmp": "generated",
    }
    layers = image_layers.cut(
        dict.fromkeys(paths, 1), lambda path: image_sources.source_of(path, owned), image_layers.DEFAULT
    )
    assert places(layers) == paths
    assert [layer.name for layer in layers] == [
        "source systemd", "generated", "etc", "dpkg", "initramfs", "kernel"
    ]  # fmt: skip
    assert {layer.name: layer.sources for layer in layers}["kernel"] == ("linux-signed",)
    assert {layer.name: layer.sources for layer in layers}["etc"] == ()


@given(st.sets(st.lists(st.sampled_from(["a", "b", "a-", "a.b"]), min_size=1, max_size=4).map("/".join)))
def test_parents_come_first_and_none_is_missing(paths):
    found = image_layers.with_parents(paths)
    assert found[0] == "."
    assert len(set(found)) == len(found)
    for number, path in enumerate(found[1:], start=1):
        assert (path.rpartition("/")[0] or ".") in found[:number]
    assert paths <= set(found)


# --- sources


def test_paths_are_of_the_source_whose_packages_ship_them():
    lists = {
        "libc6:amd64": "/.\n/lib\n/lib/libc.so.6\n/usr/share/doc\n",
        "libc-bin": "/usr/bin/ldd\n/usr/share/doc\n",
        "bash": "/bin/bash\n/usr/share/doc\n/opt/bash/x\n/var/lib/bash/y\n/etc/bash.bashrc\n",
    }
    owned = image_sources.owners(lists, {"libc6": "glibc", "libc-bin": "glibc"}, {})
    assert owned["usr/lib/libc.so.6"] == owned["usr/bin/ldd"] == "glibc"
    assert owned["usr/bin/bash"] == owned["etc/bash.bashrc"] == "bash"
    assert owned["usr/lib/opt/bash/x"] == "bash"
    assert owned["usr/share/factory/var/lib/bash/y"] == "bash"
    assert owned["usr/share/doc"] == ""  # of two sources


def test_a_file_that_is_diverted_is_its_packages_where_it_is():
    lists = {"dash": "/usr/bin/sh\n", "mine": "/usr/bin/sh\n"}
    owned = image_sources.owners(lists, {}, {"/usr/bin/sh": ("/usr/bin/sh.distrib", "mine")})
    assert owned == {"usr/bin/sh": "mine", "usr/bin/sh.distrib": "dash"}
    by_hand = image_sources.owners({"dash": "/usr/bin/sh\n"}, {}, {"/usr/bin/sh": ("/usr/bin/sh.real", ":")})
    assert by_hand == {"usr/bin/sh.real": "dash"}


def test_what_no_package_ships_goes_with_the_directory_of_one_source():
    owned = {"usr/lib/python3/six": "six", "usr/lib/python3": "", "usr/lib/python3/six/six.py": "six"}
    assert image_sources.source_of("usr/lib/python3/six/__pycache__/six.pyc", owned) == "six"
    assert image_sources.source_of("usr/lib/python3/other.pyc", owned) == ""
    assert image_sources.source_of("srv", owned) == ""
