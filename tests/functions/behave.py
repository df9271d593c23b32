"""Does what the payload's `do` says."""

import os
import time


def lambda_handler(event, context):
    return globals()[event["do"]](event, context)


def fail(event, context):
    raise ValueError(event.get("message", "too hot"))


def sleep(event, context):
    time.sleep(event["seconds"])
    return "awake"


def leave(event, context):
    os._exit(7)


def nothing(event, context):
    return None


def large(event, context):
    return "x" * event["bytes"]


def text(event, context):
    return event["text"]


def nul(event, context):
    return "a\0b"


def about(event, context):
    custom = context.client_context.custom if context.client_context else None
    print("a line in the log: grüß Gott")
    return {
        "version": context.function_version,
        "arn": context.invoked_function_arn,
        "request_id": context.aws_request_id,
        "custom": custom,
    }
