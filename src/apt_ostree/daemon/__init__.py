"""apt-ostreed: the service on the system bus. It holds no logic."""
