"""Tests: unit needs nothing, integration needs root, system needs root and boots machines."""
