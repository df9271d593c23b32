"""Puts the temperature readings of a batch into CloudWatch at once, those of a minute together. Times are UTC.

Delivery is at least once, and CloudWatch counts whatever it gets. So the ids of readings are kept for a week in the
table temperature-seen: each is claimed before its reading is put, and done afterwards. A reading can count twice only
if the function ends between the two, or CloudWatch does not answer; its claim can be taken over after a minute.
"""

import collections
import datetime
import time

import boto3

TABLE = "temperature-seen"
CLAIMED_FOR, KEPT_FOR = 60, 7 * 24 * 3600  # seconds; the first is longer than the function's own timeout
MOST_VALUES, MOST_DATA = 150, 1000  # of one datum, and of one PutMetricData

cloudwatch = boto3.client("cloudwatch")
dynamodb = boto3.client("dynamodb")


def lambda_handler(event, context):
    new = []
    try:
        for record in event["Records"]:
            if claim(record["eventID"]):
                new.append(record)
        data = metric_data([record["new"] for record in new])
        for start in range(0, len(data), MOST_DATA):
            cloudwatch.put_metric_data(
                Namespace="Temperature Monitoring Database App", MetricData=data[start : start + MOST_DATA]
            )
    except Exception:
        for record in new:
            write(record["eventID"], "claimed", 0)
        raise
    for record in new:
        write(record["eventID"], "done")
    print(f"{len(new)} new readings in {len(data)} data")
    return {"Status": "OK"}


def metric_data(readings):
    minutes = collections.defaultdict(collections.Counter)
    for reading in readings:
        at = datetime.datetime.fromisoformat(reading["reading_time"]).replace(tzinfo=datetime.timezone.utc)
        minutes[at.replace(second=0, microsecond=0)][float(reading["reading_value"])] += 1
    data = []
    for minute, counted in minutes.items():
        values = list(counted)
        for start in range(0, len(values), MOST_VALUES):
            some = values[start : start + MOST_VALUES]
            counts = [float(counted[value]) for value in some]
            data.append({"MetricName": "In Batches", "Timestamp": minute, "Values": some, "Counts": counts})
    return data


def claim(reading):
    """Whether the reading is ours to put. Another process's claim is an error, so that it comes again."""
    try:
        write(
            reading, "claimed", CLAIMED_FOR,
            ConditionExpression="attribute_not_exists(id) OR (progress = :claimed AND claimed_until <= :now)",
            ExpressionAttributeValues={":claimed": {"S": "claimed"}, ":now": {"N": str(int(time.time()))}},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )  # fmt: skip
    except dynamodb.exceptions.ConditionalCheckFailedException as refused:
        if refused.response["Item"]["progress"]["S"] == "done":
            return False
        raise RuntimeError(f"another process is putting the reading {reading}") from None
    return True


def write(reading, progress, seconds=0, **condition):
    now = int(time.time())
    item = {
        "id": {"S": reading}, "progress": {"S": progress}, "claimed_until": {"N": str(now + seconds)},
        "expires": {"N": str(now + KEPT_FOR)},
    }  # fmt: skip
    dynamodb.put_item(TableName=TABLE, Item=item, **condition)
