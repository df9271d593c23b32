"""Puts what it was called with into the queue of new users."""

import json

import boto3


def lambda_handler(event, context):
    sqs = boto3.client("sqs")
    sqs.send_message(QueueUrl=sqs.get_queue_url(QueueName="new-users")["QueueUrl"], MessageBody=json.dumps(event))
