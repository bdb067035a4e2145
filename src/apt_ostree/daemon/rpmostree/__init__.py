"""rpm-ostree's service on the bus, for its clients: other names for what the service does already.

The package apt-ostree-rpmostree-compat switches it on (data/rpmostree). Its interfaces are described in
data/rpmostree/org.projectatomic.rpmostree1.xml.
"""
