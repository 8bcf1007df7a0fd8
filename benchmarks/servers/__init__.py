"""The servers that measurements run on: private ones, started here and stopped at the end."""
