"""How a command that looks at queues may end. Those of `nbqueue serve` are in `nbqueue.serve.exit_codes`."""

from __future__ import annotations

DONE = 0
#: The operation failed, or the message did that was waited for.
FAILED = 1
#: An argument is wrong.
USAGE = 2
#: The broker can't be reached.
CONNECT = 3
#: The time was over, as timeout(1) ends.
TIMEOUT = 124
#: Ctrl-C, as shells count it: 128 and the number of the signal.
INTERRUPTED = 130
