"""Takes a batch of a Kinesis stream to which CloudWatch Logs puts an audit log, and passes its changes on to a queue.

Each record is gzip with many lines. A record that fails is named, so that Lambda calls again from there on, and what
was before it is not repeated.
"""

import base64
import gzip
import json
import os
import re

import boto3

sqs = boto3.client("sqs")
# The quote at the end may be missing: MySQL cuts off statements that are too long for its log.
CHANGE = re.compile(
    r",QUERY,(?P<database>[^,]*),'(?P<statement>\s*(?:INSERT|UPDATE|DELETE)\b(?:[^'\\]|\\.)*)", re.I | re.S
)
ESCAPE = re.compile(r"\\(.)", re.S)
ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def lambda_handler(event, context):
    for record in event["Records"]:
        try:
            handle(base64.b64decode(record["kinesis"]["data"]))
        except Exception as error:
            number = record["kinesis"]["sequenceNumber"]
            print(f"record {number}: {type(error).__name__}")
            return {"batchItemFailures": [{"itemIdentifier": number}]}
    return {"batchItemFailures": []}


def handle(data):
    document = json.loads(gzip.decompress(data).decode("utf-8"))
    if document["messageType"] != "DATA_MESSAGE":
        return
    for line in document["logEvents"]:
        if change := CHANGE.search(line["message"]):
            statement = ESCAPE.sub(lambda escape: ESCAPES.get(escape[1], escape[1]), change["statement"])
            body = json.dumps({"database": change["database"], "statement": statement}, ensure_ascii=False)
            sqs.send_message(QueueUrl=os.environ["QUEUE_URL"], MessageBody=body)
