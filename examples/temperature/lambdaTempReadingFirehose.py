"""Puts the readings of a batch into a Firehose delivery stream, as lines of JSON: Firehose adds no line ends."""

import json

import boto3

firehose = boto3.client("firehose")


def lambda_handler(event, context):
    records = [{"Data": line(record["new"])} for record in event["Records"]]
    for _ in range(3):
        answer = firehose.put_record_batch(DeliveryStreamName="FirehoseTempReading", Records=records)
        # Those that were not taken, and no others, are put again.
        records = [
            record for record, said in zip(records, answer["RequestResponses"], strict=True) if said.get("ErrorCode")
        ]
        if not records:
            return {"Status": "OK"}
    raise RuntimeError(f"Firehose did not take {len(records)} readings")


def line(reading):
    return (json.dumps({name: reading[name] for name in ("reading_time", "reading_value")}) + "\n").encode()
