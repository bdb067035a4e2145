"""Treefiles: what is accepted, how files merge, and that a mistake is named by file, line and key."""

import pytest

from apt_ostree.errors import UsageError
from apt_ostree.model import treefile
from apt_ostree.model.treefile import AddFile, Archive, Dracut, MachineState, Script, Units
from apt_ostree.system import yamlfile


def read(text: str, name: str = "/trees/os.yaml") -> treefile.Treefile:
    document = yamlfile.parse(text, name)
    return treefile.parse(document.data, name=document.name, lines=document.lines)


def refusal(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        read(text)
    assert caught.value.exit_code == 2
    return caught.value.message


def test_every_key():
    tree = read("""
include: base.yaml
ref: debian/13/${arch}/os
suite: trixie
components: [main, contrib]
archives:
  - suite: trixie
  - {suite: tools, components: [extra], mirror: "https://example.org/apt", signed-by: keys/tools.gpg}
check-valid-until: false
variant: essential
recommends: true
packages: [nginx, jq=1.7.1-3, "libc6:amd64"]
add-files:
  - {src: files/motd, dest: /etc/motd, mode: "0600"}
units: {enable: [nginx.service], disable: [ssh.socket], mask: [tmp.mount]}
postprocess:
  - inline: echo hello
  - file: scripts/last
machine-state:
  - {path: /etc/app/key, package: app}
  - {path: "/etc/shared/*", shared: true}
account-ids: ids.conf
kernel-arguments: [rw, console=ttyS0]
dracut: {add-modules: [crypt], omit-modules: [plymouth], arguments: [--no-early-microcode]}
version: 13.${date}
metadata: {vendor: example}
""")
    assert tree.include == ("/trees/base.yaml",)
    assert tree.archives == (
        Archive("trixie"),
        Archive("tools", ("extra",), "https://example.org/apt", "keys/tools.gpg", "/trees/keys/tools.gpg"),
    )
    assert tree.add_files == (AddFile("files/motd", "/etc/motd", "/trees/files/motd", 0o600),)
    assert tree.units == Units(("nginx.service",), ("ssh.socket",), ("tmp.mount",))
    assert tree.postprocess == (
        Script(inline="echo hello"),
        Script(file="scripts/last", path="/trees/scripts/last"),
    )
    assert tree.machine_state == (
        MachineState("/etc/app/key", "app"),
        MachineState("/etc/shared/*", shared=True),
    )
    assert (tree.account_ids, tree.ids_file) == ("ids.conf", "/trees/ids.conf")
    assert tree.dracut == Dracut(("crypt",), ("plymouth",), ("--no-early-microcode",))
    assert tree.check_valid_until is False
    assert tree.metadata == (("vendor", "example"),)


def test_an_empty_treefile_is_valid_but_not_complete():
    tree = read("")
    assert tree == treefile.Treefile()
    with pytest.raises(UsageError, match=r"os\.yaml: ref: expected"):
        treefile.check_complete(tree, name="os.yaml")


def test_postprocess_may_be_one_inline_script():
    assert read("postprocess: |\n  touch /etc/x\n").postprocess == (Script(inline="touch /etc/x\n"),)


@pytest.mark.parametrize(
    ("text", "where", "expected"),
    [
        ("packges: [a]", ":1: packges", "one of the keys"),
        ("suite: trixie\npackages: nginx", ":2: packages", "a list of strings"),
        ("packages:\n  - nginx\n  - 7", ":3: packages[1]", "a string"),
        ("packages:\n  - nginx\n  - 'no such'", ":3: packages[1]", "a package"),
        ("version: 13.1", ":1: version", "put it in quotes"),
        ("ref: /debian", ":1: ref", "a ref"),
        ("ref: debian/../x", ":1: ref", "a ref"),
        ("archives:\n  - components: [main]", ":2: archives[0]", "the key 'suite'"),
        ("archives:\n  - suite: a\n    mirror: nowhere", ":3: archives[0].mirror", "a URI"),
        ("archives:\n  - suite: a\n    trusted: true", ":2: archives[0]", "a mirror"),
        ("archives: {suite: a}", ":1: archives", "a list of mappings"),
        ("add-files:\n  - src: a\n    dest: etc/a", ":3: add-files[0].dest", "an absolute path"),
        ("add-files:\n  - src: a\n    dest: /etc/../a", ":3: add-files[0].dest", "an absolute path"),
        ("add-files:\n  - {src: a, dest: /a, mode: 644}", ":2: add-files[0].mode", "in quotes"),
        ("add-files:\n  - {src: a, dest: /a, mode: rw}", ":2: add-files[0].mode", "an octal mode"),
        ("units: {enable: [nginx]}", ":1: units.enable[0]", "the full name of a unit"),
        ("units: a.service", ":1: units", "a mapping"),
        ("postprocess:\n  - {inline: a, file: b}", ":2: postprocess[0]", "either inline or file"),
        ("machine-state: [{path: /a}]", ":1: machine-state[0]", "either package or shared: true"),
        (
            "machine-state: [{path: /a, package: bb, shared: true}]",
            ":1: machine-state[0]",
            "either package or",
        ),
        ("machine-state: [{path: a, shared: true}]", ":1: machine-state[0].path", "an absolute path"),
        ("machine-state: [{path: /a, package: B}]", ":1: machine-state[0].package", "the name of a package"),
        ("variant: huge", ":1: variant", "one of essential"),
        ("check-valid-until: maybe", ":1: check-valid-until", "true or false"),
        ("kernel-arguments: ['a b']", ":1: kernel-arguments[0]", "one argument"),
        ("metadata: {a: 1}", ":1: metadata.a", "a string"),
        ("suite: ''", ":1: suite", "something in it"),
        ("packages-x86_64: [xx]", ":1: packages-x86_64", "one of the keys"),
        ("default-target: graphical", ":1: default-target", "the full name of a target"),
        ("remove-files: [../x]", ":1: remove-files[0]", "an absolute path"),
        ("exclude-packages: [xx=1]", ":1: exclude-packages[0]", "the name of a package"),
        ("- a", "the document", "a mapping"),
    ],
)
def test_a_mistake_is_named(text, where, expected):
    message = refusal(text)
    assert message.startswith("/trees/os.yaml")
    assert where in message
    assert expected in message


@pytest.mark.parametrize("text", ["a: [", "a: 1\na: 2", "a: !!python/object:os.system {}", "\x00"])
def test_bad_yaml_is_a_usage_error(text):
    assert "/trees/os.yaml" in refusal(text)


def test_keys_of_rpm_ostree():
    tree = read("""
packages: [xx]
packages-amd64: [yy, xx]
packages-arm64: [zz]
exclude-packages: [never]
documentation: false
default-target: graphical.target
remove-files: [/usr/share/games]
units: [a.service]
""")
    assert treefile.for_architecture(tree, "amd64").packages == ("xx", "yy")
    assert treefile.for_architecture(tree, "riscv64").packages == ("xx",)
    assert tree.units == Units(enable=("a.service",))
    assert treefile.to_json(tree) == {
        "packages": ["xx"],
        "packages-amd64": ["xx", "yy"],
        "packages-arm64": ["zz"],
        "exclude-packages": ["never"],
        "documentation": False,
        "default-target": "graphical.target",
        "remove-files": ["/usr/share/games"],
        "units": {"enable": ["a.service"]},
    }
    over = treefile.merge(
        tree, read("packages-arm64: [ww]\ndefault-target: rescue.target\ndocumentation: true")
    )
    assert treefile.for_architecture(over, "arm64").packages == ("xx", "zz", "ww")
    assert (over.default_target, over.documentation) == ("rescue.target", True)


def test_a_package_is_not_both_wanted_and_excluded():
    tree = read("ref: a\nsuite: b\npackages: [xx, yy]\nexclude-packages: [yy]")
    with pytest.raises(UsageError, match="both have yy"):
        treefile.check_complete(tree, name="os.yaml")


def test_merge_joins_lists_and_replaces_values():
    base = read(
        "ref: a\nsuite: trixie\npackages: [xx, yy]\nkernel-arguments: [rw]\nunits: {enable: [a.service]}"
    )
    over = read("ref: b\npackages: [yy, zz]\nunits: {enable: [b.service], mask: [c.service]}")
    tree = treefile.merge(base, over)
    assert (tree.ref, tree.suite) == ("b", "trixie")
    assert tree.packages == ("xx", "yy", "zz")
    assert tree.units == Units(("a.service", "b.service"), (), ("c.service",))
    assert tree.kernel_arguments == ("rw",)


def test_merge_replaces_archives_as_a_whole():
    base = read("archives: [{suite: trixie}, {suite: trixie-security}]\ncheck-valid-until: false")
    over = read("archives: [{suite: trixie}]")
    tree = treefile.merge(base, over)
    assert tree.archives == (Archive("trixie"),)
    assert tree.check_valid_until is False
    assert treefile.merge(base, read("check-valid-until: true")).check_valid_until is True


def test_the_last_file_that_names_ids_wins():
    base, over = read("account-ids: base.conf"), read("account-ids: none")
    assert treefile.merge(base, read("ref: a")).ids_file == "/trees/base.conf"
    merged = treefile.merge(base, over)
    assert (merged.account_ids, merged.ids_file) == ("none", None)


def test_json_has_the_documented_keys_and_no_paths_of_this_machine():
    tree = read(
        "ref: a\nadd-files: [{src: m, dest: /etc/m, mode: '640'}]\npostprocess: [{file: s}]\n"
        "account-ids: ids\nmachine-state: [{path: /etc/k, package: app}]"
    )
    assert treefile.to_json(tree) == {
        "ref": "a",
        "add-files": [{"src": "m", "dest": "/etc/m", "mode": "0640"}],
        "postprocess": [{"file": "s"}],
        "account-ids": "ids",
        "machine-state": [{"path": "/etc/k", "package": "app"}],
    }


def test_expand_leaves_unknown_names():
    assert treefile.expand("${arch}/${who}", {"arch": "amd64"}) == "amd64/${who}"
