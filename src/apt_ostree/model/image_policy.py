"""Whether the policy of containers verifies an image (containers-policy.json(5)).

skopeo enforces the policy; this only tells whether there is something in it to enforce.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from apt_ostree.model.image_reference import Transport

_ANYTHING = "insecureAcceptAnything"


def accepts_anything(text: str, transport: Transport, name: str) -> bool:
    """Return whether a policy takes an image whatever its signatures are.

    The most specific scope alone counts, as for skopeo.

    text: the policy, as JSON.
    name: of the image, see ImageReference; symbolic links of a path are resolved.

    Raises ValueError for a text that is no policy.
    """
    rules = _rules(json.loads(text), transport, name)
    if not (isinstance(rules, list) and rules and all(isinstance(rule, dict) for rule in rules)):
        raise ValueError("a scope has no list of requirements")
    return all(rule.get("type") == _ANYTHING for rule in rules)


def _rules(policy: Any, transport: Transport, name: str) -> Any:
    if not isinstance(policy, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004  # of the text, not of the program
    by_transport = policy.get("transports") or {}
    by_scope = (by_transport.get(transport) or {}) if isinstance(by_transport, dict) else None
    if not isinstance(by_scope, dict):
        raise ValueError("its transports are no JSON objects")  # noqa: TRY004
    found = next((scope for scope in (*scopes(transport, name), "") if scope in by_scope), None)
    return policy.get("default") if found is None else by_scope[found]


def scopes(transport: Transport, name: str) -> tuple[str, ...]:
    """Return the scopes that an image is in, the most specific first.

    These are the image itself, its repository and what that is below, and wildcards for hosts; of an image on
    a disk, its path and what that is below.
    """
    if transport is not Transport.REGISTRY:
        return tuple(_above(name.partition(":")[0]))  # the name in a layout is no part of a scope
    repository, at, _digest = name.partition("@")
    if not at:
        head, slash, last = name.rpartition("/")
        last, colon, _tag = last.partition(":")
        repository = f"{head}{slash}{last}"
        name = name if colon else f"{name}:latest"
    above = tuple(_above(repository))
    return (name, *above, *_wildcards(above[-1].partition(":")[0]))


def _above(path: str) -> Iterator[str]:
    """Yield a path and what it is below, without a slash alone."""
    while path:
        yield path
        path = path.rpartition("/")[0]


def _wildcards(host: str) -> Iterator[str]:
    while "." in host:
        host = host.partition(".")[2]
        yield f"*.{host}"
