"""Fails, as functions do."""


def lambda_handler(event, context):
    raise ValueError(f"no sensor {event['sensor']}")
