"""Raises what it is told to."""


class OrderRefused(Exception):
    pass


def lambda_handler(event, context):
    print("about to fail")
    raise OrderRefused(event.get("message", "no"))
