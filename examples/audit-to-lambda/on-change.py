"""Logs the changes of a batch of our own event source mapping."""


def lambda_handler(event, context):
    for record in event["Records"]:
        print(f"change: {record['eventName']} {record['table']} {record['key']}")
