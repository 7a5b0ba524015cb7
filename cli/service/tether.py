"""Runs a module in this process and ends it when the parent is gone: `python -m cli.service.tether celery ...`.

The parent holds the other end of standard input and never writes to it; the kernel closes it however the parent dies,
so a launcher killed with -9 leaves nothing behind. The program keeps this process's id: signals reach it directly.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

# The time to end by TERM after the parent's death; whatever is lost by the KILL is recovered by the job's lease.
GRACE_SECONDS = 5.0


def main() -> None:
    """Watches standard input from a thread and becomes the program named by the arguments."""
    if len(sys.argv) < 2:  # noqa: PLR2004 - the program's name
        sys.exit("usage: python -m cli.service.tether PROGRAM [ARGUMENT ...]")
    threading.Thread(target=_end_with_parent, name="tether", daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    # Descriptor 0, not sys.stdin: a program that closes or replaces sys.stdin does not cut the tether.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
