"""Answers what the first record says in new.answer, whatever format it comes in."""

import base64
import json


def lambda_handler(event, context):
    record = event["Records"][0]
    if "kinesis" in record:
        record = json.loads(base64.b64decode(record["kinesis"]["data"]))
    elif "body" in record:
        record = json.loads(record["body"])
    return record["new"]["answer"]
