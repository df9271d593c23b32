"""Logs what it was called with."""


def lambda_handler(event, context):
    print("Called with", event)
    return {"logged": event}
