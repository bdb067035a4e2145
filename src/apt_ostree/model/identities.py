"""What packages make for one machine: keys, ids, the initial state of databases.

A composed tree does not hold it. It names the packages whose configure step makes it, and each machine runs
that step once (`layout.DEFERRED`). `suspicion` recognises what is made for one machine and is not in the
table. Paths are relative to the root.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from apt_ostree.errors import AptOstreeError


@dataclass(frozen=True, slots=True)
class Identity:
    """What a package makes for one machine.

    package: regular expression of its name.
    paths: patterns of pathlib's glob; a backslash and a number are a group of the name.
    configure: the package's configure step makes it. Otherwise its services or programs do when they need it.
    """

    package: str
    paths: tuple[str, ...]
    configure: bool = True


#: The known ones, in Debian 12 and 13.
KNOWN = (
    Identity("openssh-server", ("etc/ssh/ssh_host_*_key", "etc/ssh/ssh_host_*_key.pub"), configure=False),
    Identity(
        "systemd", ("var/lib/systemd/credential.secret", "var/lib/systemd/random-seed"), configure=False
    ),
    Identity("debconf", ("var/cache/debconf/passwords.dat",), configure=False),
    Identity("openssl", ("root/.rnd",), configure=False),
    Identity("ssl-cert", ("etc/ssl/certs/ssl-cert-snakeoil.pem", "etc/ssl/private/ssl-cert-snakeoil.key")),
    Identity("open-iscsi", ("etc/iscsi/initiatorname.iscsi",)),
    Identity("nvme-cli", ("etc/nvme/hostid", "etc/nvme/hostnqn")),
    Identity("munge", ("etc/munge/munge.key",)),
    Identity("bind9", ("etc/bind/rndc.key",)),
    Identity("popularity-contest", ("etc/popularity-contest.conf", "etc/cron.d/popularity-contest")),
    Identity("postgresql-([0-9]+)", (r"etc/postgresql/\1/*", r"var/lib/postgresql/\1/*")),
    Identity("mariadb-server", ("var/lib/mysql/*",)),
    Identity("slapd", ("etc/ldap/slapd.d", "var/lib/ldap/*")),
    Identity("nsd", ("etc/nsd/nsd_*.key", "etc/nsd/nsd_*.pem")),
    Identity("ircd-hybrid", ("etc/ircd-hybrid/key/*",)),
    Identity("pacemaker-common", ("etc/pacemaker/authkey",)),
    Identity("rabbitmq-server", ("var/lib/rabbitmq/.erlang.cookie",)),
    Identity("xrdp", ("etc/xrdp/rsakeys.ini",)),
    Identity("freeradius-config", ("etc/freeradius/*/certs/dh",)),
)

#: Package -> patterns of absolute paths that its configure step makes for one machine, sorted.
Deferred = Mapping[str, Sequence[str]]


def of_package(name: str, identities: Iterable[Identity]) -> list[Identity]:
    """Return what a package makes, with the patterns of its paths."""
    matches = ((identity, re.fullmatch(identity.package, name)) for identity in identities)
    return [
        Identity(name, tuple(match.expand(path) for path in identity.paths), identity.configure)
        for identity, match in matches
        if match
    ]


def matches_any(path: str, patterns: Iterable[str]) -> bool:
    """Return whether a path, or a directory above it, has one of the patterns, which begin with a slash."""
    parts = path.strip("/").split("/")
    lineage = ["/" + "/".join(parts[:n]) for n in range(1, len(parts) + 1)]
    return any(fnmatchcase(parent, pattern) for pattern in patterns for parent in lineage)


# --- the packages that are configured on the machine


def parse(text: str) -> dict[str, list[str]]:
    """Return the packages of a manifest; AptOstreeError if it is invalid."""
    try:
        return {str(name): [str(path) for path in paths] for name, paths in json.loads(text or "{}").items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise AptOstreeError(f"a list of packages to configure cannot be read: {error}") from error


def format_deferred(deferred: Deferred) -> str:
    """Return the text of a manifest."""
    rows = {name: sorted(paths) for name, paths in deferred.items()}
    return json.dumps(rows, sort_keys=True, indent=0) + "\n"


def due(deferred: Deferred, done: Iterable[str], exists: Callable[[str], bool]) -> list[str]:
    """Return the packages whose configure step a machine still needs, sorted.

    done: packages that it has already; what its owner has removed of them since is not made again.
    exists: whether the machine has a path of a pattern.
    """
    left = set(deferred) - set(done)
    return sorted(name for name in left if not all(map(exists, deferred[name])))


#: Of an installed package, which may be on hold.
_STATUS = re.compile(r"^(Status: \S+ \S+) installed$", re.MULTILINE)


def half_configured(status: str, names: Mapping[str, str]) -> str:
    """Return dpkg's status file (deb-status of dpkg(1)) with packages as before their configuration.

    names: name -> the version that was configured last, or empty before the first configuration.
    """

    def changed(stanza: str) -> str:
        name = stanza.lstrip("\n").partition("\n")[0].removeprefix("Package: ")
        if name not in names:
            return stanza
        version = f"\nConfig-Version: {names[name]}" if names[name] else ""
        return _STATUS.sub(rf"\g<1> half-configured{version}", stanza, count=1)

    return "\n\n".join(map(changed, status.split("\n\n")))


# --- what is not in the table

_PRIVATE_KEY = re.compile(rb"^-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----", re.MULTILINE)
#: Versions 1 and 4 of RFC 9562: of a time and a network card, and random.
_UUID = re.compile(rb"(?i)\b[0-9a-f]{8}-[0-9a-f]{4}-[14][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\b")
_BYTES = re.compile(rb"(?i)(?:0x[0-9a-f]{1,2}, ?){15}")
_HEX = re.compile(rb"(?i)[0-9a-f]{32,}")
#: Without the characters between the parts of paths and names.
_TOKEN = re.compile(rb"[A-Za-z0-9+=]{16,}")
#: Random bytes have almost as many different values as there can be; text and tables have far fewer.
_RANDOM_SHARE = 0.85
#: Bits for each character of a token; words have fewer.
_RANDOM_BITS = 3.0
_KINDS = (string.ascii_lowercase.encode(), string.ascii_uppercase.encode(), string.digits.encode())
#: Changes between kinds of characters for each character of a token.
_RANDOM_CHANGES = 0.45
_OTHERS_READ = 0o004
#: The largest file, in bytes, in which an id is looked for that all may read: longer ones are tables.
_ID_FILE = 4096


def suspicion(path: str, mode: int, content: bytes) -> str | None:
    """Return what of one machine a file that no package ships seems to hold, or None.

    content: its first bytes are enough.
    """
    is_binary, is_private = _is_binary(content), not mode & _OTHERS_READ
    if not is_binary and _PRIVATE_KEY.search(content):
        return "a private key"
    if is_private and (_is_random(content) if is_binary else _has_secret(content)):
        return "a secret: others may not read it, and it is random"
    # /usr has indexes of what packages ship.
    if path.startswith("usr/") or is_binary or len(content) > _ID_FILE:
        return None
    if _UUID.search(content):
        return "a unique id (UUID)"
    return "a unique id" if _HEX.fullmatch(content.strip()) else None


def _is_binary(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return error.end < len(content)  # else the first bytes end within a character
    return b"\0" in content


def _is_random(content: bytes) -> bool:
    return len(content) >= 16 and _entropy(content) >= _RANDOM_SHARE * math.log2(min(len(content), 256))


def _has_secret(content: bytes) -> bool:
    tokens = _TOKEN.findall(content)
    if len(tokens) == 1 and tokens[0] == content.strip() and _entropy(tokens[0]) >= _RANDOM_BITS:
        return True
    return bool(_BYTES.search(content)) or any(_HEX.fullmatch(token) or _is_mixed(token) for token in tokens)


def _is_mixed(token: bytes) -> bool:
    """Return whether small and capital letters and digits alternate more often than in names."""
    kinds = [next((kind for kind in _KINDS if byte in kind), b"") for byte in token]
    changes = sum(one != other for one, other in itertools.pairwise(kinds))
    return set(_KINDS) <= set(kinds) and changes >= _RANDOM_CHANGES * len(token)


def _entropy(content: bytes) -> float:
    """Return the bits of information in each byte, by how often each value occurs."""
    counts, size = Counter(content), len(content)
    return -sum(n / size * math.log2(n / size) for n in counts.values())
