"""Accounts of a tree as sysusers.d lines."""

from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.model import accounts
from apt_ostree.model.accounts import Group, User

PASSWD = """\
root:x:0:0:root:/root:/bin/bash
sshd:x:989:65534:sshd user:/run/sshd:/usr/sbin/nologin
odd:x:150:150:100% "odd":/var/lib/odd:/bin/sh
bare:x:151:151::/nonexistent:/usr/sbin/nologin
anna:x:1000:1000:Anna,,,:/home/anna:/bin/bash
broken line
+nis::::::
"""
GROUP = """\
root:x:0:
adm:x:4:odd,anna
odd:x:150:
bare:x:151:
anna:x:1000:
nogroup:x:65534:
"""


def lines(known: frozenset[str] = frozenset()) -> list[str]:
    users, groups = accounts.parse_passwd(PASSWD), accounts.parse_group(GROUP)
    return accounts.sysusers(users, groups, existing=known).splitlines()[1:]


def test_parsing_passes_over_broken_lines():
    users = accounts.parse_passwd(PASSWD)
    assert [user.name for user in users] == ["root", "sshd", "odd", "bare", "anna"]
    assert users[1] == User("sshd", 989, 65534, "sshd user", "/run/sshd", "/usr/sbin/nologin")
    assert accounts.parse_group(GROUP)[1] == Group("adm", 4, ("odd", "anna"))


def test_system_accounts_with_exact_ids_people_left_out():
    assert lines() == [
        "g root 0",
        "g adm 4",
        "g odd 150",
        "g bare 151",
        "g nogroup 65534",
        "u root 0:0 root /root /bin/bash",
        'u odd 150:150 "100%% \\"odd\\"" /var/lib/odd /bin/sh',
        "u bare 151:151 - /nonexistent /usr/sbin/nologin",
        'u sshd 989:65534 "sshd user" /run/sshd /usr/sbin/nologin',
        "m odd adm",
    ]


def test_what_packages_pin_already_is_left_out():
    known = accounts.pinned(
        "# x\ng adm 4 -\nu root 0 - /root /bin/bash\nu sshd -\nu nobody 65534:65534 -\nm a b\n"
    )
    assert known == {"g adm 4", "u root 0", "g root 0", "u nobody 65534"}
    assert "g adm 4" not in lines(known)
    assert not [line for line in lines(known) if " root " in line]


def test_a_pin_to_another_number_does_not_count():
    assert "g adm 4" in lines(accounts.pinned("g adm 5 -\n"))


def test_change_dates_stay_only_with_passwords():
    shadow = (
        "root:*:20415:0:99999:7:::\nsshd:!*:20415::::::1\nanna:$y$x:20415:0:99999:7:::\nnone::20415::::::\n"
    )
    assert accounts.without_change_dates(shadow) == (
        "root:*::0:99999:7:::\nsshd:!*:::::::1\nanna:$y$x:20415:0:99999:7:::\nnone:::::::::\n".replace(
            "none:::::::::", "none::::::::"
        )
    )
    once = accounts.without_change_dates(shadow)
    assert accounts.without_change_dates(once) == once


# --- what an undo makes of them

_users = st.sampled_from(["root", "daemon", "joe", "jane", "fx", "sshd", "_apt"])
_files = st.dictionaries(_users, st.integers(0, 99999), max_size=6).map(
    lambda d: "".join(f"{name}:x:{number}:\n" for name, number in d.items())
)


def _names(text: str) -> set[str]:
    return {line.partition(":")[0] for line in text.splitlines()}


@given(_files, _files, _files)
def test_undoing_added_accounts_keeps_all_others(before: str, change: str, own: str):
    known = _names(before)
    after = before + "".join(x for x in change.splitlines(keepends=True) if x.partition(":")[0] not in known)
    current = after + "".join(
        line for line in own.splitlines(keepends=True) if line.partition(":")[0] not in _names(after)
    )
    added = accounts.names(after) - accounts.names(before)
    left = accounts.without_names(current, added)
    assert left.startswith(before)
    assert _names(left) == _names(current) - (_names(after) - known)
    assert accounts.without_names(left, added) == left
    assert not accounts.changed_since(current, before, after)


def test_an_added_account_that_was_changed_since_is_known():
    before, after = "root:*:1::::::\n", "root:*:1::::::\nweb:!*:::::::\n"
    assert accounts.changed_since(after, before, after) == frozenset()
    assert accounts.changed_since(before, before, after) == frozenset()  # an undo was here before
    assert accounts.changed_since("root:$y$new:2::::::\nweb:!*:::::::\n", before, after) == frozenset()
    assert accounts.changed_since("root:*:1::::::\nweb:$y$hash:3::::::\n", before, after) == {"web"}


def test_lines_without_a_password_complete_the_files():
    texts = {
        "passwd": "root:x:0:0::/:/bin/sh\navahi:x:100:101::/:/bin/sh\nold:*:7:7::/:/bin/sh\nbroken\n",
        "shadow": "root:$y$secret:1::::::\ngone:*:::::::\n",
        "group": "root:x:0:\navahi:x:101:root\n",
        "gshadow": "root:*::\navahi:!::root\n",
    }
    assert accounts.lines_without_password(texts) == {"shadow": "avahi:!*:::::::\n"}
    assert accounts.lines_without_password({**texts, "shadow": ""})["shadow"].count("\n") == 2
    without = {name: text for name, text in texts.items() if name != "shadow"}
    assert accounts.lines_without_password(without) == {}


def test_the_lines_about_accounts_are_theirs_and_those_of_their_members():
    users = [User("one", 101, 201, "", "/var/lib/one", "/bin/sh"), User("two", 102, 202, "", "/", "/bin/sh")]
    groups = [Group("one", 201, ("two",)), Group("two", 202, ()), Group("three", 203, ("two",))]
    text = accounts.sysusers(users, groups)
    assert accounts.lines_about(text, frozenset({"one"})) == [
        "g one 201",
        "u one 101:201 - /var/lib/one /bin/sh",
        "m two one",
    ]
    assert accounts.lines_about(text, accounts.described_names(text)) == text.splitlines()[1:]
    assert accounts.lines_about(text, frozenset()) == []
