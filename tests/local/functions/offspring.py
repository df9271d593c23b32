"""Starts a program that would outlive it."""

import subprocess
import time


def lambda_handler(event, context):
    child = subprocess.Popen(["sleep", "600"])
    time.sleep(event.get("seconds", 0))
    return child.pid
