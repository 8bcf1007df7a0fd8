"""Brokers by kind. Nothing is imported here: each module needs its own client library."""
