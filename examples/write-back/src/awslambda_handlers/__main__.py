"""python -m awslambda_handlers MODULE [PAYLOAD]: calls a function's handler here, and prints what it returns."""

import importlib
import json
import sys


class Context:
    """What handlers see of an invocation."""

    aws_request_id = "local"
    memory_limit_in_mb = 128

    def __init__(self, name: str) -> None:
        self.function_name = name
        self.invoked_function_arn = f"arn:aws:lambda:local:000000000000:function:{name}"

    def get_remaining_time_in_millis(self) -> int:
        return 900_000


def main(module: str, payload: str = "{}") -> None:
    """Prints the answer as JSON."""
    try:
        event = json.loads(payload)
    except ValueError as error:
        sys.exit(f"the payload is not JSON: {error}")
    try:
        handler = importlib.import_module(module).lambda_handler
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        sys.exit(f"there is no function {module!r}")
    print(json.dumps(handler(event, Context(module)), default=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
