"""apt-ostree: an image-based Debian with atomic, explained and undoable live updates."""

__version__ = "0.1.0"
