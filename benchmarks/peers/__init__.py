"""One adapter a peer, all of one shape (`peer.py`), each run in a process of its own (`__main__.py`)."""

#: In the order of the tables.
NAMES = ["nbqueue", "dramatiq", "huey", "rq", "celery", "saq", "taskiq"]
