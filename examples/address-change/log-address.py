"""Logs what it is told of an address."""


def lambda_handler(event, context):
    print(f"address of customer {event['customer_id']}: {event['address']} ({event['said']})")
    return {"Status": "OK"}
