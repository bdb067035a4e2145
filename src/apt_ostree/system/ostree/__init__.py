"""libostree through its introspection binding: the only package that imports gi."""
