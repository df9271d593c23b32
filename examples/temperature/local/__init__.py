"""What the readings need in AWS, and what came of them: the metrics, the alarm, the file that Redshift copies."""

from __future__ import annotations

import datetime
import json
import time
from pathlib import Path
from typing import Any

from awslambda_local import LocalAWS

from examples.stage import EXAMPLES, Stage

READINGS = 8
THRESHOLD = 80
METRICS = ("Temperature Reading", "After Commit", "In Batches")
NAMESPACE = "Temperature Monitoring Database App"
BUCKET = "temperature-123456789012"
COPY = f"COPY rs_temp_reading FROM 's3://{BUCKET}/{{}}' IAM_ROLE default FORMAT AS JSON 'auto' TIMEFORMAT 'auto';"


def prepare(here: Stage) -> list[str]:
    """An alarm above 80 with a topic and who subscribes to it; a delivery stream with its bucket."""
    sns, sqs = here.aws.client("sns"), here.aws.client("sqs")
    topic = sns.create_topic(Name="too-hot")["TopicArn"]
    url = sqs.create_queue(QueueName="operators")["QueueUrl"]
    queue = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
    here.aws.client("cloudwatch").put_metric_alarm(
        AlarmName="Temperature too high", Namespace=NAMESPACE, MetricName="Temperature Reading", Statistic="Maximum",
        Period=600, EvaluationPeriods=1, Threshold=THRESHOLD, ComparisonOperator="GreaterThanThreshold",
        AlarmActions=[topic],
    )  # fmt: skip
    here.make("s3", "create_bucket", Bucket=BUCKET)
    here.make(
        "firehose", "create_delivery_stream", DeliveryStreamName="FirehoseTempReading",
        ExtendedS3DestinationConfiguration={
            "RoleARN": f"arn:aws:iam::{here.aws.account_id}:role/lambda-role", "BucketARN": f"arn:aws:s3:::{BUCKET}",
        },
    )  # fmt: skip
    here.make(
        "dynamodb", "create_table", TableName="temperature-seen", BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )  # fmt: skip
    return []


def show(here: Stage) -> bool:
    """Prints all of it; whether it all has arrived."""
    shown = all([*(show_metric(here, name) for name in METRICS), show_alarm(here.aws), show_file(here.aws)])
    picture = EXAMPLES.parent / "build" / "temperature.png"
    draw(metric(here.aws.client("cloudwatch"), METRICS[0]), picture)
    print(f"-- The metric as a picture: {picture.relative_to(EXAMPLES.parent)}")
    return shown


def show_metric(here: Stage, name: str) -> bool:
    """Reads a metric back, as soon as all readings have arrived, and prints it."""
    deadline = time.monotonic() + 30
    cloudwatch = here.aws.client("cloudwatch")
    while len(points := metric(cloudwatch, name)) < READINGS and time.monotonic() < deadline:
        time.sleep(0.1)
    print(f"-- The metric '{name}', read back from CloudWatch:\n")
    for point in points:
        print(f"   {point['Timestamp']:%H:%M} UTC  {point['Average']:5.1f}  {'#' * int(point['Average'] - 50)}")
    print()
    return len(points) == READINGS


def metric(cloudwatch: Any, name: str) -> list[dict[str, Any]]:
    now = datetime.datetime.now(datetime.timezone.utc)
    found = cloudwatch.get_metric_statistics(
        Namespace=NAMESPACE, MetricName=name, Statistics=["Average"],
        StartTime=now - datetime.timedelta(hours=2), EndTime=now, Period=60,
    )  # fmt: skip
    return sorted(found["Datapoints"], key=lambda point: point["Timestamp"])


def draw(points: list[dict[str, Any]], path: Path) -> None:
    """The picture of a metric as CloudWatch's GetMetricWidgetImage shows it, with the alarm's threshold."""
    from matplotlib import dates
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=100)  # 600 x 400, as there
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    times, values = [point["Timestamp"] for point in points], [point["Average"] for point in points]
    axes.plot(times, values, color="#1f77b4", marker=".", label=METRICS[0])
    axes.axhline(THRESHOLD, color="#d62728", label="Temperature too high")
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M", tz=datetime.timezone.utc))
    axes.set_title(NAMESPACE, fontsize=10)
    axes.grid(axis="y", color="#dddddd")
    axes.legend(loc="upper left", fontsize=8)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def show_alarm(aws: LocalAWS) -> bool:
    """Prints the alarm's state, and what its subscriber was told."""
    sqs = aws.client("sqs")
    url = sqs.get_queue_url(QueueName="operators")["QueueUrl"]
    told = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=20).get("Messages", [])
    subjects = [json.loads(message["Body"])["Subject"] for message in told]
    found = aws.client("cloudwatch").describe_alarms(AlarmNames=["Temperature too high"])["MetricAlarms"]
    print(f"-- The alarm 'Temperature too high' is in {found[0]['StateValue']}; its subscriber was told:\n")
    for subject in subjects:
        print(f"   {subject}")
    print()
    return found[0]["StateValue"] == "ALARM" and any(subject.startswith("ALARM") for subject in subjects)


def show_file(aws: LocalAWS) -> bool:
    """Prints the file that Firehose wrote, and the COPY that Firehose would run for it."""
    s3 = aws.client("s3")
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]
    lines: list[str] = []
    for key in keys:
        text = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode()
        print(f"-- Firehose wrote, and would run in Redshift: {COPY.format(key)}\n")
        print("".join(f"   {line}\n" for line in text.splitlines()))
        lines += text.splitlines()
    return len(lines) == READINGS
