def lambda_handler(event, context):
    return "x" * event["size"]
