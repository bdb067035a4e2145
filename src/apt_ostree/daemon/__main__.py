"""The program of apt-ostreed.service: `python3 -I -m apt_ostree.daemon`."""

from __future__ import annotations

from apt_ostree.daemon.service import serve

serve()
