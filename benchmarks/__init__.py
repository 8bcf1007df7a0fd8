"""Side-by-side measurements. `python -m benchmarks` runs them; numbers of one run may be compared."""
