"""Unit tests: they need no server and no network."""
