"""A module whose import hangs: in Python, in C with the interpreter's lock held, or until something comes."""

from __future__ import annotations

import ctypes
import os
import time

import tasks

LOCK = ctypes.create_string_buffer(256)

tasks.note("importing")
how = os.environ["HANGS"]
while True:
    if how == "in C":
        # A lock that is taken twice: no signal gets one out of that.
        tasks.C_WITH_LOCK.pthread_mutex_lock(LOCK)
    elif how == "in Python":
        time.sleep(0.01)
    else:
        try:
            time.sleep(0.01)
        except BaseException:
            tasks.note("caught")
            break
