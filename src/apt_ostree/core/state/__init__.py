"""The state of the system: packages of commits, overlays, live state, generations."""
