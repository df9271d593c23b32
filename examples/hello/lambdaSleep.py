"""Takes its time."""

import time


def lambda_handler(event, context):
    time.sleep(event["seconds"])
    return "done"
