"""The topic, and a queue that subscribes to it as a telephone would."""

from __future__ import annotations

import json
import time

from examples.stage import Stage

TOLD = ["emmy noether", "stephen hawking"]


def prepare(here: Stage) -> list[str]:
    """Makes them."""
    sns, sqs = here.aws.client("sns"), here.aws.client("sqs")
    topic = sns.create_topic(Name="new-users")["TopicArn"]
    url = sqs.create_queue(QueueName="telephone")["QueueUrl"]
    queue = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
    return []


def show(here: Stage) -> bool:
    """Prints what the subscriber received: of each new user one message, and none of who was rolled back."""
    sqs = here.aws.client("sqs")
    url = sqs.get_queue_url(QueueName="telephone")["QueueUrl"]
    texts: list[str] = []
    deadline = time.monotonic() + 20
    while len(texts) < len(TOLD) and time.monotonic() < deadline:
        for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", []):
            texts.append(json.loads(message["Body"])["Message"])
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    print("-- The subscriber received:\n")
    for text in sorted(texts):
        print(f"   {text}")
    return sorted(text.rpartition(": ")[2] for text in texts) == TOLD
