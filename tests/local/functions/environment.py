"""Its process: variables, process id, working directory."""

import os


def handler(event, context):
    return {"variables": dict(os.environ), "pid": os.getpid(), "directory": os.getcwd()}
