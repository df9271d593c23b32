import logging
import sys


def lambda_handler(event, context):
    for number in range(event["lines"]):
        print(f"line {number}")
    print("to stderr", file=sys.stderr)
    logging.getLogger().warning("by logging")
    return "said"
