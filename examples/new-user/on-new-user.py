"""Tells a topic of a new user. Powertools' parser refuses an event that is not one."""

import os

import boto3
from aws_lambda_powertools.utilities.parser import BaseModel, event_parser

sns = boto3.client("sns")


class NewUser(BaseModel):
    firstname: str
    lastname: str
    created_at: str


@event_parser(model=NewUser)
def lambda_handler(event: NewUser, context):
    text = f"A new user was added at {event.created_at}: {event.firstname} {event.lastname}"
    published = sns.publish(TopicArn=os.environ["NOTIFICATION_TOPIC_ARN"], Message=text)
    return {"lambda_request_id": context.aws_request_id, "message_id": published["MessageId"]}
