-- As on RDS: the trigger calls the function inside the transaction, for each row. The names of function and region are the
-- trigger's arguments.
CREATE EXTENSION IF NOT EXISTS aws_lambda CASCADE;

CREATE TABLE users (id integer PRIMARY KEY, firstname varchar(100), lastname varchar(100), age integer);
INSERT INTO users VALUES (1, 'albert', 'einstein', 40), (2, 'isaac', 'newton', 25), (3, 'marie', 'curie', 32);

CREATE FUNCTION respond_with_lambda() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_NARGS <> 2 OR '' IN (TG_ARGV[0], TG_ARGV[1]) THEN
    RAISE EXCEPTION 'respond_with_lambda takes the names of a function and a region, not %', TG_ARGV;
  END IF;
  PERFORM FROM aws_lambda.invoke(
    aws_commons.create_lambda_function_arn(TG_ARGV[0], TG_ARGV[1]),
    json_build_object(
      'firstname', NEW.firstname, 'lastname', NEW.lastname, 'created_at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')),
    'Event');
  RETURN NEW;
END
$$;

CREATE TRIGGER new_user_trigger AFTER INSERT ON users
  FOR EACH ROW EXECUTE FUNCTION respond_with_lambda('on-new-user', 'us-east-1');

INSERT INTO users VALUES (4, 'stephen', 'hawking', 55);
