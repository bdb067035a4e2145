"""rpm-ostree's interfaces on the bus: names, types of values, and the requests that calls make."""
