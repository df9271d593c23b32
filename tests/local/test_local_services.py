"""The services beside Lambda, which are moto's: that they are there, over the connections that this server keeps."""

from __future__ import annotations

import json
import time


def test_a_topic_delivers_to_a_queue(aws, wait_until):
    sns, sqs = aws.client("sns"), aws.client("sqs")
    url = sqs.create_queue(QueueName="subscribed")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    topic = sns.create_topic(Name="news")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    sns.publish(TopicArn=topic, Message="hello")
    messages = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5)["Messages"]
    assert json.loads(messages[0]["Body"])["Message"] == "hello"


def test_a_stream_gives_back_its_records(aws):
    kinesis = aws.client("kinesis")
    kinesis.create_stream(StreamName="clicks", ShardCount=1)
    kinesis.put_records(StreamName="clicks", Records=[{"Data": b"\x00\xff", "PartitionKey": "k"}])
    iterator = kinesis.get_shard_iterator(
        StreamName="clicks", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    assert [record["Data"] for record in kinesis.get_records(ShardIterator=iterator)["Records"]] == [b"\x00\xff"]


def test_firehose_writes_to_a_bucket_and_objects_are_whole(aws):
    s3, firehose = aws.client("s3"), aws.client("firehose")
    s3.create_bucket(Bucket="lake")
    s3.put_object(Bucket="lake", Key="large", Body=b"x" * 3_000_000)
    assert s3.head_object(Bucket="lake", Key="large")["ContentLength"] == 3_000_000
    assert s3.get_object(Bucket="lake", Key="large")["Body"].read() == b"x" * 3_000_000
    s3.delete_object(Bucket="lake", Key="large")
    firehose.create_delivery_stream(
        DeliveryStreamName="to-lake",
        ExtendedS3DestinationConfiguration={
            "RoleARN": "arn:aws:iam::123456789012:role/lambda-role",
            "BucketARN": "arn:aws:s3:::lake",
        },
    )
    firehose.put_record(DeliveryStreamName="to-lake", Record={"Data": b"row\n"})
    keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket="lake")["Contents"]]
    assert s3.get_object(Bucket="lake", Key=keys[0])["Body"].read() == b"row\n"


def test_metrics_secrets_and_identity_answer(aws):
    now = time.time()
    cloudwatch = aws.client("cloudwatch")
    cloudwatch.put_metric_data(Namespace="tests", MetricData=[{"MetricName": "lag", "Value": 5}])
    points = cloudwatch.get_metric_statistics(
        Namespace="tests", MetricName="lag", StartTime=now - 60, EndTime=now + 60, Period=60, Statistics=["Maximum"]
    )["Datapoints"]
    assert [point["Maximum"] for point in points] == [5.0]
    secrets = aws.client("secretsmanager")
    secrets.create_secret(Name="s", SecretString="kept")
    assert secrets.get_secret_value(SecretId="s")["SecretString"] == "kept"
    assert aws.client("sts").get_caller_identity()["Account"] == aws.account_id


def test_what_moto_has_not_got_is_an_answer_and_not_a_broken_connection(send):
    status, _, _ = send("/2021-11-15/functions/echo/response-streaming-invocations", b"{}")
    assert status >= 400
    assert send("/2015-03-31/functions/echo/invocations", b"{}")[0] == 200
