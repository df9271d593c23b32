"""Puts one temperature reading into CloudWatch. Times are UTC."""

import datetime

import boto3

cloudwatch = boto3.client("cloudwatch")


def lambda_handler(event, context):
    time = datetime.datetime.fromisoformat(event["reading_time"]).replace(tzinfo=datetime.timezone.utc)
    value = float(event["reading_value"])
    print(f"temperature reading: {time:%Y-%m-%d %H:%M:%S} UTC, {value:.2f}")
    cloudwatch.put_metric_data(
        Namespace="Temperature Monitoring Database App",
        MetricData=[{"MetricName": event.get("metric", "Temperature Reading"), "Timestamp": time, "Value": value}],
    )
    return {"Status": "OK"}
