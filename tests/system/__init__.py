"""Tests on a booted machine."""
