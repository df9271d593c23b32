-- The same after commit: a rollback sends nothing, and an AWS that is away holds up nobody. One call for each row:
CREATE TABLE temp_reading_committed (reading_time timestamp, reading_value numeric);

CREATE FUNCTION temp_reading_committed_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM awslambda_fn_on_commit(
    'lambdaTempReadingTrigger', to_jsonb(NEW) || jsonb_build_object('id', gen_random_uuid(), 'metric', 'After Commit'));
  RETURN NULL;
END
$$;

CREATE TRIGGER temp_reading_committed_trigger AFTER INSERT ON temp_reading_committed
  FOR EACH ROW EXECUTE FUNCTION temp_reading_committed_trigger();

BEGIN;
INSERT INTO temp_reading_committed VALUES (now() AT TIME ZONE 'UTC', 451);
ROLLBACK;

INSERT INTO temp_reading_committed SELECT * FROM temp_reading;
CALL awslambda.dispatch();
