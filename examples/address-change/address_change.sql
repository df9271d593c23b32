-- An UPDATE updates. Who wants somebody to be told calls the procedure that says so.
CREATE TABLE customers (customer_id int PRIMARY KEY, address text);
INSERT INTO customers VALUES (1, 'Main Street 1'), (2, 'Main Street 2');

CREATE PROCEDURE update_address(customer int, new_address text, notify boolean DEFAULT true, intention boolean DEFAULT false)
LANGUAGE plpgsql AS $$
DECLARE
  told jsonb := jsonb_build_object('customer_id', customer, 'address', new_address);
BEGIN
  IF notify AND intention THEN  -- now: it was tried, whatever becomes of it
    PERFORM awslambda_fn_async('log-address', told || '{"said": "intention"}');
  END IF;
  UPDATE customers SET address = new_address WHERE customer_id = customer;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no customer %', customer USING ERRCODE = 'no_data_found';
  END IF;
  IF notify AND NOT intention THEN  -- when it is done, and only then
    PERFORM awslambda_fn_on_commit('log-address', told || '{"said": "completion"}');
  END IF;
END
$$;

-- A repair by hand tells nobody.
UPDATE customers SET address = 'Main Street 1a' WHERE customer_id = 1;
CALL update_address(1, 'Main Street 1b', notify => false);

-- By intention, and rolled back: the function has been called all the same.
BEGIN;
CALL update_address(1, 'Rolled Back 1', intention => true);
ROLLBACK;

-- By completion, and rolled back: it has not.
BEGIN;
CALL update_address(1, 'Rolled Back 2');
ROLLBACK;

-- By completion, and committed.
CALL update_address(1, 'New Street 1');
CALL update_address(2, 'New Street 2');
CALL awslambda.dispatch();

TABLE customers ORDER BY customer_id;
