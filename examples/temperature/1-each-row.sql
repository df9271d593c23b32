-- Readings of a sensor, in UTC; each new row goes to a Lambda function that puts it into CloudWatch.
CREATE TABLE temp_reading (reading_time timestamp, reading_value numeric);

CREATE FUNCTION temp_reading_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM awslambda_fn_async('lambdaTempReadingTrigger', to_jsonb(NEW) || jsonb_build_object('id', gen_random_uuid()));
  RETURN NULL;
END
$$;

CREATE TRIGGER temp_reading_trigger AFTER INSERT ON temp_reading
  FOR EACH ROW EXECUTE FUNCTION temp_reading_trigger();

INSERT INTO temp_reading
SELECT date_trunc('minute', now() AT TIME ZONE 'UTC') - minutes * interval '1 minute', value
  FROM (VALUES (80, 65), (70, 65), (60, 63), (50, 67), (40, 74), (30, 82), (20, 85), (10, 86)) AS v(minutes, value);
