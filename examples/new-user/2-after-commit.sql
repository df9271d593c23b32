-- Ours: the same trigger, after commit. Nobody is told of a user who was rolled back, and an AWS that is away delays the
-- message instead of refusing the user. (The region is the server's, or part of the function's ARN.)
CREATE OR REPLACE FUNCTION respond_with_lambda() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM awslambda_fn_on_commit(
    TG_ARGV[0],
    json_build_object(
      'firstname', NEW.firstname, 'lastname', NEW.lastname, 'created_at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')));
  RETURN NEW;
END
$$;

BEGIN;
INSERT INTO users VALUES (5, 'nobody', 'at all', 0);
ROLLBACK;

INSERT INTO users VALUES (6, 'emmy', 'noether', 53);
CALL awslambda.dispatch();
