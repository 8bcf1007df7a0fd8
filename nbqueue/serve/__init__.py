"""What `nbqueue serve` runs: a master that starts, watches and replaces worker processes.

The master has one thread, and holds neither a broker nor the user's code. It learns from its children
through a pipe each (`reports`), and what they run from a piece of shared memory (`board`). A child notices
that its master has died when the `lifeline`, a pipe that nobody writes to, ends.

    settings         what was asked for           exit_codes     how a run may end
    master           the loop                     signals        wake it
    child, beside    a child as it sees it        worker_slot    one of N, its replacement, its deaths
    lifeline         what every child does first  reports        what children tell
    worker_process   runs messages                board          what they run, and how the run is
    fork_process     runs a function beside       health         answers on the health port
    loading          imports the user's modules   logs           where log lines go, and their form
    watching, pid_file, resident, systemd
"""
