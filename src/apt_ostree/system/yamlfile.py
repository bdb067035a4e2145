"""Owns PyYAML: converts text to plain values, with the line number of each key.

It does not know the meaning of the keys; `model.treefile` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from apt_ostree.errors import UsageError
from apt_ostree.model.document import KeyPath


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file.

    name: as the user gave it.
    data: the value of the document.
    lines: the line number of every key and list item.
    """

    name: str
    data: Any
    lines: Mapping[KeyPath, int]


def read(path: Path) -> Document:
    """Read and parse one YAML file; UsageError names the file and the line of a mistake."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"cannot read {path}: {reason}", hint="check the path") from error
    return parse(text, str(path))


def parse(text: str, name: str) -> Document:
    """Parse YAML text; UsageError for other values than plain ones (safe tags) and for duplicate keys."""
    lines: dict[KeyPath, int] = {}
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return Document(name, {}, lines)
        _walk(node, (), lines, name)
        return Document(name, loader.construct_document(node), lines)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or str(error)
        raise UsageError(f"{where}: not valid YAML: {problem}") from error


def _walk(node: Any, path: KeyPath, lines: dict[KeyPath, int], name: str) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*path, str(key.value))
            line = key.start_mark.line + 1
            if below in lines:
                raise UsageError(f"{name}:{line}: duplicate key {key.value!r}")
            lines[below] = line
            _walk(value, below, lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            below = (*path, index)
            lines[below] = item.start_mark.line + 1
            _walk(item, below, lines, name)
