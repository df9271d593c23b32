def lambda_handler(event, context):
    return "the settings name another handler"
