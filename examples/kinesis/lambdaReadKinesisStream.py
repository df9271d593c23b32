"""Reads one record of a Kinesis stream: the first, that after a SequenceNumber, or the next of a NextShardIterator."""

import json
import time

import boto3

kinesis = boto3.client("kinesis")


def lambda_handler(event, context):
    stream = event["StreamName"]
    shard = event.get("ShardId") or kinesis.list_shards(StreamName=stream)["Shards"][0]["ShardId"]
    iterator = event.get("NextShardIterator") or first_iterator(stream, shard, event.get("SequenceNumber"))
    deadline = time.monotonic() + float(event.get("Timeout", 3))
    while True:
        page = kinesis.get_records(ShardIterator=iterator, Limit=1)
        iterator = page.get("NextShardIterator")
        for record in page["Records"]:
            return {
                "Data": json.loads(record["Data"]),
                "SequenceNumber": record["SequenceNumber"],
                "NextShardIterator": iterator,
            }
        if iterator is None or time.monotonic() > deadline:
            return {"Data": "", "SequenceNumber": "", "NextShardIterator": iterator}
        time.sleep(0.2)


def first_iterator(stream, shard, after):
    where = {"ShardIteratorType": "TRIM_HORIZON"}
    if after:
        where = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": after}
    return kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, **where)["ShardIterator"]
