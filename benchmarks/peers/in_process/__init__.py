"""The contenders inside one process, each with 8 threads (`Contender` in peer.py)."""

#: In the order of the tables.
NAMES = ["threadpool", "nbqueue", "joblib", "dask", "dramatiq"]
