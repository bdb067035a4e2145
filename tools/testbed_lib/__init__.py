"""Boots throw-away apt-ostree machines: images, nspawn and QEMU, fixture packages. Standard library only."""
