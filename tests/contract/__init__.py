"""The same cases against every broker."""
