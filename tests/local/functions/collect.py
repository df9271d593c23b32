"""Prints the event, so that its log tells what it was called with."""

import json


def lambda_handler(event, context):
    print("got " + json.dumps(event))
    if "please fail" in json.dumps(event):
        raise RuntimeError("asked to fail")
    return {"collected": True}
