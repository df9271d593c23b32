import no_such_module


def lambda_handler(event, context):
    return no_such_module.answer
