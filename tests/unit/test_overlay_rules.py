"""The rules about what an overlay may hold, each both ways, and against made-up overlays."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.errors import UsageError
from apt_ostree.model.overlay_rules import RULES, SCOPES, UNCONDITIONAL, Item, Limits, Violation, check
from tests.fixtures.hostile import BREACHES, harmless, hostile, scope_of

GNU = "usr/lib/x86_64-linux-gnu"
FILE = {"base": "file", "base_mode": 0o644}
PROGRAM = {"base": "file", "base_mode": 0o755}
THERE = {"base": "directory", "base_mode": 0o755}


def file(path: str, mode: int = 0o644, **more: Any) -> Item:
    return Item(path, "file", mode, **{"size": 1, **more})


def link(path: str, target: str, **more: Any) -> Item:
    return Item(path, "symlink", 0o777, target=target, **more)


def gone(path: str, base: str = "file") -> Item:
    return Item(path, "whiteout", base=base, base_mode=0o755)


def directory(path: str, mode: int = 0o755, **more: Any) -> Item:
    return Item(path, "directory", mode, **more)


def broken(*items: Item, **more: Any) -> set[str]:
    return {violation.rule for violation in check(items, **more)}


#: What takes the place of code that has root's rights, and breaks no other rule.
PRIVILEGED = (
    file("usr/bin/bash", 0o755, **PROGRAM),
    file(f"{GNU}/libc.so.6", 0o755, **PROGRAM),
    link("usr/bin/sh", "bash", base="symlink"),
    link("usr/bin/sh", "/usr/bin/dash", base="symlink"),
    link(f"{GNU}/libcap.so.2", "libcap.so.2.67", base="symlink"),
    link("usr/lib64/ld-linux-x86-64.so.2", "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", base="symlink"),
    file("usr/bin/su", 0o4755, base="file", base_mode=0o4755),
    file("usr/bin/chage", 0o2755, gid=42, base="file", base_mode=0o2755, base_uid=0, base_gid=42),
)


@pytest.mark.parametrize(
    ("rule", "item"),
    [
        *(
            ("bad-path", file(path))
            for path in (
                "", ".", "..", "/usr/bin/x", "usr/../x", "usr/bin/..", "usr//x", "usr/x/", "usr/./x",
                "usr/a\0b",
                "usr/a\nb", "usr/\x1b[m", "usr/\x85", "usr/.wh.x", "usr/.wh..wh..opq", "etc/.ostree-wh.x/y",
                "usr/\udc80",
                "usr/" + "x" * 256, "usr/" + "\u00e4" * 128, "usr/" + "a/" * 2046 + "b",
            )
        ),
        *(("outside-scope", file(path)) for path in ("var/x", "bin/x", "usr/etc", "usr/etc/x", "x", "usr2/x",
        "usr")),
        ("outside-scope", link("etc", "/usr")),
        ("outside-scope", directory("root")),
        ("device-node", Item("usr/x", "other")),
        ("device-node", Item("usr/x", "socket")),
        ("type-change", file("usr/share/x", **THERE)),
        ("type-change", link("usr/share/x", "/usr", **THERE)),
        ("type-change", directory("etc/x", **FILE)),
        ("type-change", directory("etc/x", base="symlink")),
        *(("protected", gone(path, "directory")) for path in ("usr", "etc", "usr/lib/systemd", GNU,
        "usr/lib/modules")),
        *(("protected", gone(f"usr/lib/{t}", "directory")) for t in ("aarch64-linux-gnu",
        "arm-linux-gnueabihf")),
        *(("protected", gone(path)) for path in ("usr/bin/sh", f"{GNU}/libc.so.6",
        "usr/lib64/ld-linux-x86-64.so.2")),
        *(
            ("protected", file(path, **base))
            for path in ("etc/passwd", "etc/shadow-", "etc/machine-id", "usr/lib/modules/6.1/x.ko",
            "etc/ostree/x",
                         "usr/lib/sysimage/dpkg/status", "usr/lib/ostree-boot/x", "usr/lib/apt-ostree/x",
                         "etc/subuid")
            for base in ({}, FILE)
        ),
        ("protected", directory("usr/lib/modules/6.1")),
        ("protected", directory("usr/lib/sysimage", 0o777, **THERE)),
        ("protected", file("usr/bin/bash", 0o755, size=0)),
        ("protected", file("usr/bin/bash", 0o644)),
        ("protected", file(f"{GNU}/libc.so.6", 0o600)),
        ("protected", link("usr/bin/dash", "sh", **PROGRAM)),
        ("protected", link("usr/bin/sh", "/dev/null", base="symlink")),
        ("protected", link("usr/lib64", "lib", base="symlink")),
        ("recovery", gone("usr/bin/apt-ostree")),
        ("recovery", file("usr/bin/dpkg", **PROGRAM)),
        ("recovery", file("usr/bin/systemctl", **PROGRAM)),
        ("recovery", gone("usr/sbin/ldconfig")),
        ("recovery", file("etc/apt-ostree/apt-ostree.conf", **FILE)),
        ("recovery", link("etc/systemd/system/apt-ostree-recover.service", "/dev/null")),
        ("recovery", file("usr/lib/python3/dist-packages/apt_ostree/worker.py", **FILE)),
        ("recovery", gone("usr/lib/python3.11", "directory")),
        ("lockout", gone("etc/pam.d/common-auth")),
        ("lockout", file("etc/nsswitch.conf", size=0)),
        ("lockout", link("etc/systemd/system/default.target", "/dev/null")),
        ("privileged-code", file("etc/pam.d/common-auth", **FILE)),
        ("privileged-code", file("etc/pam.d/sudo", **FILE)),
        ("privileged-code", gone(f"{GNU}/security/pam_unix.so")),
        ("privileged-code", file("usr/bin/chage", 0o755, base="file", base_mode=0o2755)),
        *(("privileged-code", file(path)) for path in ("etc/pam.d/polkit-1", "etc/ld.so.conf.d/x.conf",
        "usr/local/lib/libpam.so.0", f"{GNU}/glibc-hwcaps/x86-64-v3/libcap.so.2", "usr/libexec/sudo/own.so")),
        *(("privileged-code", file(path, 0o755, **PROGRAM)) for path in ("usr/bin/zsh", "usr/sbin/sshd",
        "usr/libexec/sudo/sudoers.so", f"{GNU}/libnss_files.so.2", "etc/nsswitch.conf")),
        ("privileged-code", gone("usr/lib/pam.d", "directory")),
        *(("privileged-code", item) for item in PRIVILEGED),
        ("closed-directory", directory("usr/bin", 0o700, **THERE)),
        ("world-writable", file("usr/share/x", 0o666)),
        ("world-writable", file("usr/share/x", 0o1666)),
        ("world-writable", directory("usr/share/x", 0o777)),
        ("writable-code", file("usr/bin/x", 0o755, uid=33)),
        ("writable-code", file("usr/lib/x/y.so", 0o664, gid=50)),
        ("writable-code", directory("usr/bin", 0o775, gid=50, **THERE)),
        ("owner", file("etc/x", uid=1000)),
        ("owner", file("etc/x", gid=65534)),
        ("owner", directory("etc/x", uid=-1)),
        ("owner", link("etc/x", "y", uid=1000, base="symlink", base_uid=1001)),
        ("setuid", file("usr/bin/x", 0o4755)),
        ("setuid", file("usr/bin/x", 0o2755, **PROGRAM)),
        ("setuid", file("usr/bin/x", 0o6755, base="file", base_mode=0o4755)),
        ("setuid", file("usr/bin/x", 0o4755, base="file", base_mode=0o4755, base_uid=6)),
        *(("privileged-xattr", file("usr/x", xattrs=(x,))) for x in ("security.capability", "trusted.x",
        "security.evm")),
        ("marker-xattr", file("usr/x", xattrs=("trusted.overlay.redirect",))),
        ("marker-xattr", directory("usr/x", xattrs=("user.overlay.opaque",))),
        ("acl", file("usr/x", xattrs=("system.posix_acl_access",))),
        *(
            ("link-escape", link("etc/x/y", target))
            for target in ("../../../etc/z", "/home/x", "/root", "/tmp/x", "/", "/dev/sda",
            "../../proc/1/root", "/boot",
                           "/run/user/1/x", "/var/tmp/x", "/usr/../tmp", "/../usr", "/sysroot")
        ),
        ("link-loop", link("usr/bin/a", "./a")),
        ("link-loop", link("usr/bin/a", "/bin/a")),
        *(("bad-target", link("usr/x", target)) for target in ("", "a\0", "\x1b", "\udc80", "x" * 4096)),
        ("secret-link", link("etc/motd", "shadow")),
        ("secret-link", link("usr/share/www/x", "/etc/ssh/ssh_host_rsa_key")),
        ("exposed-secret", file("etc/ssl/private/x.key", 0o644)),
        ("preload", file("etc/ld.so.preload")),
        ("preload", link("usr/lib/python3/dist-packages/sitecustomize.py", "/usr/share/x.py")),
        ("preload", file(f"{GNU}/glibc-hwcaps/x86-64-v3/libc.so.6")),
        *(
            ("misleading-name", file(f"usr/bin/{name}", 0o755))
            for name in ("a\u202eb", "a\u200bb", "...", "ls ", " ls", "-rf", ".hidden")
        ),
        *(("too-deep", file("usr" + "/x" * depth)) for depth in (64, 100)),
    ],
)  # fmt: skip
def test_refused(rule: str, item: Item):
    assert rule in broken(item)


@pytest.mark.parametrize(
    "item",
    [
        file("usr/bin/wrapper", 0o755, **PROGRAM),
        file("usr/share/a..b/...c"),
        file("usr/share/" + "x" * 255),
        file("usr/share/\u00e4\u20ac\U0001f600 (1).txt"),
        file("usr/share/wh.x/a.wh.b"),
        file("usr" + "/x" * 63),
        file("usr/local/etc/x"),
        directory("usr", **THERE),
        directory("etc", **THERE),
        directory("usr/lib/modules", **THERE),  # that alone changes nothing
        file("etc/fstab", **FILE),
        file("etc/passwd.d/x"),
        file(f"{GNU}/libnss_own.so.2"),
        file("etc/sudoers.d/own", 0o440),
        directory("etc/pam.d", **THERE),
        gone("usr/share/doc", "directory"),
        gone("usr/bin/not-there", "absent"),
        gone("usr/lib/x/systemd", "directory"),
        file(f"{GNU}/libssl.so.3", **FILE),
        gone("usr/bin/su"),
        file("etc/systemd/system/nginx.service.d/limits.conf"),
        file("etc/systemd/system/-.mount.d/x.conf"),
        link("etc/systemd/system/apt-daily.timer", "/dev/null"),
        link("etc/systemd/system/default.target", "/lib/systemd/system/multi-user.target"),
        file("etc/apt-ostree/health.d/50-web", 0o755),
        file("etc/motd", size=0, **FILE),
        directory("etc/cron.d", 0o700, **THERE),
        directory("usr/share/x", 0o1777),
        directory("usr/share/x", 0o2775, gid=50),
        directory("usr/share/x", 0o777, base="directory", base_mode=0o777),
        file("etc/cups/x", 0o660, gid=7),
        file("etc/x", uid=1000, base_uid=1000, gid=1001, base_gid=1001, **FILE),
        file("usr/bin/x", 0o755, xattrs=("security.selinux", "security.ima", "user.comment")),
        link("etc/mtab", "../proc/self/mounts"),
        link("etc/x/y/z", "../../../usr/bin"),
        link("usr/bin/X11", "."),
        link("usr/share/www", "/srv/www"),
        link("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"),
        link("usr/lib/x/data", "/var/lib/x"),
        link("usr/lib/x/opt", "/opt/x"),
        link("usr/bin/x", "/bin/y"),
        file("etc/ssl/private/x.key", 0o640, gid=110),
        gone("etc/ld.so.preload"),
        file("usr/lib/x/.htaccess"),
        file("usr/bin/.hmac", 0o644),
    ],
)  # fmt: skip
def test_accepted(item: Item):
    assert check([item]) == ()
    assert check([item], scope="global") == ()


@pytest.mark.parametrize(
    ("rule", "item"),
    [
        ("user-adds-only", file("usr/bin/x", **FILE)),
        ("user-adds-only", gone("usr/bin/x", "absent")),
        ("user-adds-only", link("usr/bin/x", "y", base="symlink")),
        ("user-etc", file("etc/x")),
        ("user-privilege", file("usr/bin/x", 0o4755, base="file", base_mode=0o4755)),
        ("user-privilege", directory("usr/share/x", 0o2775)),
        ("user-privilege", file("usr/bin/x", uid=33)),
        ("user-privilege", file("usr/bin/x", xattrs=("security.capability",))),
        *(
            ("user-root-code", file(path))
            for path in (
                "usr/lib/systemd/system/x.service", "usr/lib/systemd/user/x.service",
                "usr/lib/udev/rules.d/x.rules",
                "usr/lib/pam.d/x", f"{GNU}/security/pam_x.so", "usr/share/dbus-1/system-services/x.service",
                "usr/share/polkit-1/rules.d/x.rules", f"{GNU}/libx.so.1", "usr/sbin/ls", "usr/local/bin/ls",
                "usr/lib/tmpfiles.d/x.conf", "usr/lib/python3/dist-packages/x.pth",
                "usr/share/keyrings/x.gpg",
                "usr/lib/libx.so", f"{GNU}/glibc-hwcaps/x86-64-v2/libz.so.1",
            )
        ),
        ("user-root-code", link("usr/local/lib", "/var/lib/x")),
    ],
)  # fmt: skip
def test_refused_to_users(rule: str, item: Item):
    assert rule in broken(item, scope="user")
    assert not any(name.startswith("user-") for name in broken(item))


@pytest.mark.parametrize(
    "item",
    [
        file("usr/bin/x", 0o755),
        file("usr/share/x/y"),
        file("usr/lib/x/plugin.so"),
        file(f"{GNU}/x/plugin.so"),
        file("usr/lib/python3/dist-packages/x/__init__.py"),
        file("usr/share/applications/x.desktop"),
        link("usr/bin/y", "x"),
        directory("usr/lib/systemd", **THERE),
        directory("usr/local/share/fonts", 0o2775, gid=50, base="directory", base_mode=0o2775),
    ],
)
def test_accepted_of_users(item: Item):
    assert check([item], scope="user") == ()


@pytest.mark.parametrize("order", itertools.permutations(range(3)))
@pytest.mark.parametrize("above", [file("usr/a"), link("usr/a", "/etc"), gone("usr/a")])
def test_only_directories_have_paths_below(above: Item, order: tuple[int, ...]):
    items = [above, file("usr/a/b/c"), file("usr/x")]
    found = check([items[i] for i in order])
    assert [(v.path, v.rule) for v in found] == [("usr/a", "type-change")]
    assert check([directory("usr/a"), *items[1:]]) == ()


def test_a_path_is_there_once():
    found = check([directory("usr/a"), link("usr/a", "/etc"), file("usr/a/passwd"), file("usr/a/passwd")])
    assert [(v.path, v.rule) for v in found] == [
        ("usr/a", "duplicate"), ("usr/a", "type-change"), ("usr/a/passwd", "duplicate"),
    ]  # fmt: skip


def test_loops_are_found_and_chains_are_not():
    loop = [link("usr/bin/a", "b"), link("usr/bin/b", "../bin/c"), link("usr/bin/c", "/bin/a")]
    assert {v.path for v in check([*loop, link("usr/bin/d", "a")])} == {"usr/bin/a", "usr/bin/b", "usr/bin/c"}
    assert check([*loop[:2], file("usr/bin/c", 0o755), link("usr/bin/d", "a")]) == ()


def test_limits():
    items = [file(f"usr/share/{i}", size=10) for i in range(10)]
    assert check(items, limits=Limits(max_files=10, max_bytes=100, max_depth=3)) == ()
    assert broken(*items, limits=Limits(max_files=9)) == {"too-many"}
    assert broken(*items, limits=Limits(max_bytes=99)) == {"too-large"}
    assert broken(*items, file("usr/share/less", size=-99), limits=Limits(max_bytes=99)) == {"too-large"}
    assert broken(*items, limits=Limits(max_depth=2)) == {"too-deep"}
    endless = (file(f"usr/share/{i}") for i in itertools.count())
    assert [v.rule for v in check(endless, limits=Limits(max_files=1000))] == ["too-many"]


def test_in_order_and_fit_to_be_printed():
    found = check(
        [file("usr/z", 0o666, uid=5000), file("usr/\x1b[2J"), file("etc/\udcff"), file("usr/a", uid=1000)]
    )
    assert [(v.path, v.rule) for v in found] == [
        (r"etc/\udcff", "bad-path"), (r"usr/\x1b[2J", "bad-path"), ("usr/a", "owner"), ("usr/z", "owner"),
        ("usr/z", "world-writable"),
    ]  # fmt: skip
    assert found[-1] == Violation("usr/z", "world-writable", "is writable by everybody (mode 0666)")


def test_unknown_names_are_bad_requests():
    with pytest.raises(UsageError, match="no-such-rule"):
        check([], allowed=["setuid", "no-such-rule"])
    with pytest.raises(UsageError):
        check([], scope="everybody")


@pytest.mark.parametrize("rule", RULES)
def test_what_a_policy_switches_off(rule: str):
    if rule in ("too-many", "too-large", "too-deep"):
        items, limits = [file("usr/share/x", size=2), file("usr/share/y")], Limits(1, 1, 1)
    else:
        items, limits = next(found for name, found in hostile(3, 60) if name == rule), Limits()
    scope = scope_of(rule)
    assert rule in broken(*items, scope=scope, limits=limits)
    assert (rule in broken(*items, scope=scope, limits=limits, allowed=[rule])) == (rule in UNCONDITIONAL)
    others = [name for name in RULES if name != rule]
    assert broken(*items, scope=scope, limits=limits, allowed=others) >= {rule}


def test_rules_are_described():
    assert RULES.keys() >= UNCONDITIONAL
    assert BREACHES.keys() == RULES.keys()
    assert {"outside-scope", "bad-path", "device-node", "protected", "type-change"} <= UNCONDITIONAL
    assert all(text and "\n" not in text for text in RULES.values())


def test_hostile_overlays_are_refused():
    seen: Counter[str] = Counter()
    for rule, items in hostile(20240601, 300):
        found = check(items, scope=scope_of(rule))
        assert rule in {v.rule for v in found}, items
        assert all(v.path.isprintable() and v.message.isprintable() for v in found)
        seen[rule] += 1
    assert seen.keys() == RULES.keys()


def test_harmless_overlays_are_accepted():
    for items in harmless(20240601, 100):
        assert check(items) == (), items


ANY_PATH = st.one_of(
    st.text(st.characters()),  # surrogates included
    st.lists(st.sampled_from(["usr", "etc", "bin", "..", ".", "", "lib", "sh", "\udc80", "\0", "x"])).map(
        "/".join
    ),
)


@given(
    st.lists(
        st.builds(
            Item, path=ANY_PATH, type=st.sampled_from(["file", "symlink", "directory", "whiteout", "other",
            ""]),
            mode=st.integers(), uid=st.integers(), gid=st.integers(), size=st.integers(), target=ANY_PATH,
            xattrs=st.lists(ANY_PATH, max_size=3).map(tuple), base=st.sampled_from(["absent", "file",
            "directory"]),
            base_mode=st.integers(),
        ),
        max_size=8,
    ),
    st.sampled_from(sorted(SCOPES)),
)  # fmt: skip
def test_nothing_makes_it_fail(items: list[Item], scope: str):
    found = check(items, scope=scope)
    assert list(found) == sorted(found, key=lambda v: (v.path, v.rule))
    for violation in found:
        assert violation.rule in RULES
        assert (violation.path + violation.message).isprintable()
        violation.path.encode()


@pytest.mark.parametrize("item", PRIVILEGED)
def test_privileged_code_can_be_named(item: Item):
    assert broken(item) == {"privileged-code"}
    assert not broken(item, allowed=["privileged-code"])
