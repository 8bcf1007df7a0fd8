"""The commands of `%nbqueue`, one file each: `run` carries it out and returns the text to print.

`COMMANDS` is their order in the help, each with its arguments and what it does.
"""

from __future__ import annotations

#: What is typed after `%nbqueue`, and what it does. The module has the name of the first word.
COMMANDS = {
    "status": ("", "broker, worker, queues and actors"),
    "dashboard": ("", "every queue, live, with buttons"),
    "use": ("URL", "run on another broker: redis://host, amqp://host, stub://, or $NAME of a variable"),
    "workers": ("N", "so many threads in this kernel, 0 for none"),
    "serve": (
        "MODULE",
        "run worker processes for a module: -p N processes, -t N threads; --log shows their log",
    ),
    "stop": ("", "stop the threads in this kernel, and the worker processes started from here"),
    "pause": ("", "let the threads in this kernel take no more messages"),
    "resume": ("", "let them take messages again"),
    "promote": (
        "FILE.py [ACTOR]",
        "write actors of this notebook, and what they need, into a module; --diff shows, --force overwrites",
    ),
    "flush": ("[QUEUE]", "empty one queue or all; --yes on a server"),
    "failed": ("[N]", "the latest messages that failed"),
    "retry": ("[ID]", "send failed messages again: one, by the start of its id, or all"),
}
