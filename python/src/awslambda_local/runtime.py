"""The program of a handler's process: AWS's own runtime client, which ends when the local AWS does.

Run as a script, `runtime.py HANDLER LIFELINE LIBRARY`, so that the handler's `sys.path` begins with its own folder
and holds nothing of this package. LIFELINE is the reading end of a pipe whose other end the local AWS keeps: it
closes however that process ends, kill -9 included, and then this process goes too, with all that the handler has
started. LIBRARY is where awslambdaric is installed.
"""

import _thread
import os
import select
import signal
import sys

LAST_SECONDS = 2.0


def _end_with(lifeline: int) -> None:
    try:
        os.read(lifeline, 1)  # returns only when the other end is closed
    finally:
        os.killpg(0, signal.SIGKILL)


def main(handler: str, lifeline: int, library: str) -> None:
    sys.path[0] = os.environ["LAMBDA_TASK_ROOT"]
    if library not in sys.path:
        sys.path.append(library)
    os.set_inheritable(lifeline, False)
    _thread.start_new_thread(_end_with, (lifeline,))

    from awslambdaric.__main__ import main as serve

    try:
        serve(["awslambdaric", handler])
    except Exception:
        # The Runtime API is gone. If that is because the local AWS is, the lifeline closes within the same moment, and
        # whatever the handler has started must end with it: leaving now would leave that behind.
        if select.select([lifeline], [], [], LAST_SECONDS)[0]:
            os.killpg(0, signal.SIGKILL)
        raise


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
