"""Alarms go off when their metric crosses the threshold, and tell their topic."""

from __future__ import annotations

import datetime
import json


def test_an_alarm_goes_off_and_back_and_tells_its_topic(aws):
    sns, sqs, cloudwatch = aws.client("sns"), aws.client("sqs"), aws.client("cloudwatch")
    topic = sns.create_topic(Name="alarms")["TopicArn"]
    url = sqs.create_queue(QueueName="operators")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    cloudwatch.put_metric_alarm(
        AlarmName="hot", Namespace="Alarmed", MetricName="Temperature", Statistic="Maximum", Period=60,
        EvaluationPeriods=2, Threshold=80, ComparisonOperator="GreaterThanThreshold", AlarmActions=[topic],
        OKActions=[topic],
    )  # fmt: skip
    now = datetime.datetime.now(datetime.timezone.utc).replace(second=0, microsecond=0)

    def put(value: float, minutes_ago: int, name: str = "Temperature") -> str:
        at = now - datetime.timedelta(minutes=minutes_ago)
        data = [{"MetricName": name, "Timestamp": at, "Value": value}]
        cloudwatch.put_metric_data(Namespace="Alarmed", MetricData=data)
        return cloudwatch.describe_alarms(AlarmNames=["hot"])["MetricAlarms"][0]["StateValue"]

    assert put(90, 5) == "OK"  # one of two periods
    assert put(99, 4, "Another") == "OK"
    assert put(85, 4) == "ALARM"
    assert put(70, 2) == "OK"
    told = []
    while len(told) < 2:
        received = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=5).get("Messages", [])
        assert received
        told += [json.loads(json.loads(message["Body"])["Message"])["NewStateValue"] for message in received]
    assert sorted(told) == ["ALARM", "OK"]
