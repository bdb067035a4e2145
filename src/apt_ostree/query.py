"""Answers one query in a process of its own: for the service, which libapt's lists must not fill.

stdin:   {"query": NAME, "arguments": {...}}; see model.queries
stdout:  {"answer": ...}, or the JSON object of an error
"""

from __future__ import annotations

import json
import sys

from apt_ostree.core import queries
from apt_ostree.errors import AptOstreeError, from_os_error


def main() -> None:
    """Answer the query on stdin."""
    try:
        asked = json.load(sys.stdin)
        said = {"answer": queries.answer_json(asked["query"], asked["arguments"])}
    except AptOstreeError as error:
        said = error.to_json()
    except OSError as error:
        said = from_os_error(error).to_json()
    json.dump(said, sys.stdout)
