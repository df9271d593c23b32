"""Returns what it was called with."""


def lambda_handler(event, context):
    return event
