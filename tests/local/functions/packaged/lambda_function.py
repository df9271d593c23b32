from greeting import greet


def lambda_handler(event, context):
    return greet(event["name"])
