"""Puts one temperature reading into CloudWatch. Times are UTC.

Calls can come twice, from Lambda's own retries or from the outbox's. Powertools keeps the ids of readings for a week in
the table temperature-seen, and returns the first call's answer to the second.
"""

import datetime

import boto3
from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig, idempotent

KEPT_FOR = 7 * 24 * 3600  # seconds

cloudwatch = boto3.client("cloudwatch")
seen = DynamoDBPersistenceLayer(table_name="temperature-seen", expiry_attr="expires")


@idempotent(persistence_store=seen, config=IdempotencyConfig(event_key_jmespath="id", expires_after_seconds=KEPT_FOR))
def lambda_handler(event, context):
    time = datetime.datetime.fromisoformat(event["reading_time"]).replace(tzinfo=datetime.timezone.utc)
    value = float(event["reading_value"])
    print(f"temperature reading: {time:%Y-%m-%d %H:%M:%S} UTC, {value:.2f}")
    cloudwatch.put_metric_data(
        Namespace="Temperature Monitoring Database App",
        MetricData=[{"MetricName": event.get("metric", "Temperature Reading"), "Timestamp": time, "Value": value}],
    )
    return {"Status": "OK"}
