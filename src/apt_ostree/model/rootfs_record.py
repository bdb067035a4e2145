"""What `compose install` and `compose postprocess` leave in a root filesystem for the step after them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum

from apt_ostree.model import jsonvalue
from apt_ostree.model.package import Package

#: The file, in the root of the filesystem. No commit has it.
NAME = ".apt-ostree-compose.json"


class Stage(StrEnum):
    """How far a root filesystem is."""

    INSTALLED = "installed"
    POSTPROCESSED = "postprocessed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """How a root filesystem came about.

    timestamp: the time of the commit, in seconds since 1970.
    source_date: the time that packages' scripts saw, likewise.
    sources: a description of each archive, for the commit.
    packages: those that were to be installed.
    installed_from: a digest of what decides about the packages; "" if apt-ostree did not install them.
    applied: a digest of what a treefile made of them; "" without one.
    ids: the ids that accounts keep, in the form of model.account_ids.
    content: a fingerprint of the files, as the step left them.
    is_pure: nobody else has changed the files.
    """

    stage: Stage
    timestamp: int
    source_date: int
    sources: tuple[str, ...] = ()
    packages: tuple[Package, ...] = ()
    installed_from: str = ""
    applied: str = ""
    ids: str = ""
    content: str = ""
    is_pure: bool = True


def parse(text: str, *, name: str) -> Record:
    """Return a record; UsageError for another text. name: of the file."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    return jsonvalue.read(Record, value, name=name)


def format_record(record: Record) -> str:
    """Return the text of a record."""
    return json.dumps(asdict(record), indent=1) + "\n"
