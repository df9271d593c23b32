"""Scores new orders, and writes the scores back: it is called with batches of an event source mapping.

Delivery is at least once, so a score is written so that it can be written again: a second time changes nothing. It is
also after commit, so an order may be gone by now, and has no score then.
"""

from awslambda_handlers import transaction


def lambda_handler(event, context):
    orders = [{**record["key"], **record["new"]} for record in event["Records"] if record["new"]]
    written = write(orders)
    print(f"scored {written} of {len(orders)} orders")


@transaction
def write(connection, orders):
    written = 0
    for order in orders:
        scored = {"id": order["id"], "score": len(order["customer"]) + float(order["amount"]) / 10}
        written += connection.execute(
            """
            INSERT INTO order_score AS s (order_id, score) SELECT id, %(score)s FROM orders WHERE id = %(id)s
            ON CONFLICT (order_id) DO UPDATE SET score = excluded.score WHERE s.score <> excluded.score
            """,
            scored,
        ).rowcount
        connection.execute("UPDATE orders SET is_scored = true WHERE id = %(id)s AND NOT is_scored", scored)
    return written
