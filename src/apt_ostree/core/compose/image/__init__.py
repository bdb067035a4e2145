"""Makes container images (OCI) of commits."""
