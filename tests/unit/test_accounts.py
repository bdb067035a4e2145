"""Accounts of a tree as sysusers.d lines."""

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
    return accounts.sysusers(users, groups, known=known).splitlines()[1:]


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
