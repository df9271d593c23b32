"""Gives back what it got, and what it knows of the call."""


def lambda_handler(event, context):
    client_context = context.client_context
    return {
        "event": event,
        "request_id": context.aws_request_id,
        "function_arn": context.invoked_function_arn,
        "function_version": context.function_version,
        "remaining": context.get_remaining_time_in_millis(),
        "custom": client_context.custom if client_context else None,
    }
