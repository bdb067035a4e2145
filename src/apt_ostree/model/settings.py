"""The administrator's settings: sections and keys of apt-ostree.conf (apt-ostree.conf(5))."""

from __future__ import annotations

import configparser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from apt_ostree.errors import UsageError


@dataclass(frozen=True, slots=True)
class Settings:
    """What apt-ostree.conf may set.

    script_timeout: [Layering] ScriptTimeout, seconds that dpkg may pass without any sign of progress.
    """

    script_timeout: float = 600.0


#: (section, key) -> field of Settings. Every setting so far is a positive number of seconds.
_KEYS: Mapping[tuple[str, str], str] = {("Layering", "ScriptTimeout"): "script_timeout"}


def parse_settings(files: Sequence[tuple[str, str]]) -> Settings:
    """Return the settings of files (name, text), the later ones winning; UsageError names file and key."""
    settings = Settings()
    for name, text in files:
        parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
        parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their case
        try:
            parser.read_string(text, name)
        except configparser.Error as error:
            raise UsageError(f"{name} cannot be read: {error.message}") from error
        for section in parser.sections():
            for key, value in parser[section].items():
                settings = replace(settings, **{_field(name, section, key): _seconds(name, key, value)})
    return settings


def _field(name: str, section: str, key: str) -> str:
    try:
        return _KEYS[section, key]
    except KeyError:
        known = ", ".join(f"[{known_section}] {known_key}" for known_section, known_key in _KEYS)
        raise UsageError(f"{name}: unknown setting [{section}] {key}", hint=f"known: {known}") from None


def _seconds(name: str, key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if number <= 0:
        raise UsageError(f"{name}: {key} must be a positive number of seconds, not {value!r}")
    return number
