"""Returns its payload with a status."""


def lambda_handler(event, context):
    return {**event, "Status": "OK"}
