"""Puts the temperature readings of a batch into CloudWatch at once, those of a minute together. Times are UTC.

Delivery is at least once. A reading that comes again does not count again while this process lives; where another
process of the function gets it, it can count twice, which moves neither minimum nor maximum.
"""

import collections
import datetime

import boto3

cloudwatch = boto3.client("cloudwatch")
seen = collections.OrderedDict()  # message ids, the last ten thousand


def lambda_handler(event, context):
    minutes = collections.defaultdict(collections.Counter)
    new = [record for record in event["Records"] if record["eventID"] not in seen]
    for record in new:
        reading = record["new"]
        time = datetime.datetime.fromisoformat(reading["reading_time"]).replace(tzinfo=datetime.timezone.utc)
        minutes[time.replace(second=0, microsecond=0)][float(reading["reading_value"])] += 1
    data = [
        {
            "MetricName": "In Batches", "Timestamp": minute,
            "Values": list(values), "Counts": [float(count) for count in values.values()],
        }
        for minute, values in minutes.items()
    ]  # fmt: skip
    for start in range(0, len(data), 1000):  # the most of one PutMetricData
        cloudwatch.put_metric_data(
            Namespace="Temperature Monitoring Database App", MetricData=data[start : start + 1000]
        )
    for record in new:
        seen[record["eventID"]] = True
    while len(seen) > 10_000:
        seen.popitem(last=False)
    print(f"{len(new)} new readings in {len(data)} minutes")
    return {"Status": "OK"}
