"""How a run, or a process of it, may end."""

from __future__ import annotations

OK = 0
#: Killed, by a second signal or because it did not stop in time.
KILLED = 1
#: A module could not be imported, or an argument is wrong.
IMPORT = 2
#: The broker can't be reached at start.
CONNECT = 3
#: A fork process's function can't be imported. Of the process alone: the run then ends with IMPORT.
NO_FUNCTION = 126
#: The pid file is another process's, or can't be written.
PID_FILE = 4
