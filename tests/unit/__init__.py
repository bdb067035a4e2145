"""Tests that need no root and touch no system."""
