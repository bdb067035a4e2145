"""Who owns a path, by dpkg's lists."""

from __future__ import annotations

from apt_ostree.model.dpkg_lists import info_name, owners


def test_the_files_of_some_packages_have_the_architecture_in_their_names():
    assert info_name({"bash.list", "libc6:amd64.list"}, "bash", "amd64") == "bash"
    assert info_name({"bash.list", "libc6:amd64.list"}, "libc6", "amd64") == "libc6:amd64"


def test_owners():
    lists = {
        "ssh": "/.\n/etc\n/etc/ssh\n/lib/systemd/system/ssh.service\n",
        "libc6:amd64": "/etc\n/etc/ld.so.conf\n",
        "libc6:i386": "/etc\n/etc/ld.so.conf\n",
        "empty": "",
    }
    sought = {"/usr/lib/systemd/system/ssh.service", "/etc/ld.so.conf", "/etc", "/etc/nobodys"}
    assert owners(lists, sought) == {
        "/usr/lib/systemd/system/ssh.service": "ssh",  # by way of the merged /usr
        "/etc/ld.so.conf": "libc6",  # of either architecture
    }
