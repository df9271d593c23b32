import time


def lambda_handler(event, context):
    print("sleeping")
    time.sleep(event.get("seconds", 0))
    return "awake"
