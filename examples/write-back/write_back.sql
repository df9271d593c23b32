-- A function scores new orders and writes what it found back into another table, and into the order itself.
CREATE TABLE student (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL);
CREATE TABLE orders (id int PRIMARY KEY, customer text NOT NULL, amount numeric NOT NULL, is_scored boolean NOT NULL DEFAULT false);
CREATE TABLE order_score (order_id int PRIMARY KEY REFERENCES orders ON DELETE CASCADE, score numeric NOT NULL);

CREATE ROLE functions LOGIN PASSWORD 'of-the-secret';
GRANT SELECT, INSERT, UPDATE, DELETE ON student, order_score TO functions;
GRANT SELECT, UPDATE (is_scored) ON orders TO functions;

-- `columns` keeps the function from being called for what it writes itself.
SELECT awslambda.create_event_source_mapping(
         'orders', 'score-order-local', operations => '{INSERT, UPDATE}', columns => '{customer, amount}');

INSERT INTO orders VALUES (1, 'albert', 40), (2, 'isaac', 25);
UPDATE orders SET amount = 50 WHERE id = 1;
CALL awslambda.dispatch();

SELECT id, customer, amount, is_scored, score FROM orders LEFT JOIN order_score ON order_id = id ORDER BY id;

-- The function has updated orders, which is no new event:
CALL awslambda.dispatch();
SELECT pending, delivered FROM awslambda.status WHERE mapping IS NOT NULL;
