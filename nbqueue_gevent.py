"""`nbqueue-gevent`: the command line of nbqueue with greenlets for threads.

A module of its own: everything has to be patched before anything of nbqueue is imported.
"""

from __future__ import annotations

import sys
import warnings


def main() -> int:
    """Patch, then run the command line; return the exit code."""
    try:
        from gevent import monkey
    except ImportError:
        print('nbqueue-gevent needs gevent: pip install "nbqueue[gevent]".', file=sys.stderr)
        return 1
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        warnings.warn("gevent does not use an interpreter without a global lock well.", RuntimeWarning, 2)
    monkey.patch_all()
    from nbqueue.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
