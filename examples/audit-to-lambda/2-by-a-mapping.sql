-- If the database is a PostgreSQL with awslambda, there is nothing in between: its changes reach a function in batches, after
-- commit, retried, and the application knows nothing of it.
CREATE TABLE orders (id int PRIMARY KEY, amount numeric);
SELECT awslambda.create_event_source_mapping('orders', 'on-change', batch_size => 100);

INSERT INTO orders SELECT g, 10 * g FROM generate_series(1, 3) AS g;
UPDATE orders SET amount = 0 WHERE id = 2;
CALL awslambda.dispatch();

SELECT mapping, pending, delivered FROM awslambda.status WHERE mapping IS NOT NULL;
