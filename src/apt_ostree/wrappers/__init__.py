"""Debian's package tools on a booted deployment, in the package apt-ostree-wrappers (docs/wrappers.md).

These modules import nothing of the other parts, and little of the standard library: the tools are called
often, by scripts.
"""
