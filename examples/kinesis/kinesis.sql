-- Three readings of a sensor go into the stream.
SELECT ordinality, shard_id, error_code
  FROM awslambda.kinesis_put_records(
         'MySensorReadings',
         ARRAY[convert_to('{"time": "2016-02-16 12:00:00", "temp": "99"}', 'UTF8'),
               convert_to('{"time": "2016-02-16 12:30:00", "temp": "100"}', 'UTF8'),
               convert_to('{"time": "2016-02-16 13:00:00", "temp": "110"}', 'UTF8')],
         ARRAY['Sensor1', 'Sensor1', 'Sensor1']);

-- The way of 2016: a function reads one record at a time, of the first shard.
SELECT awslambda_fn('lambdaReadKinesisStream', '{"StreamName": "MySensorReadings"}'::jsonb) -> 'Data' AS kinesistest;

CREATE FUNCTION processSensorReadings(sequenceNumber text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  asked jsonb := jsonb_build_object('StreamName', 'MySensorReadings', 'SequenceNumber', sequenceNumber, 'Timeout', 0.5);
  msg jsonb;
BEGIN
  LOOP
    msg := awslambda_fn('lambdaReadKinesisStream', asked);
    EXIT WHEN msg ->> 'SequenceNumber' = '';
    sequenceNumber := msg ->> 'SequenceNumber';
    RAISE NOTICE 'Time %, Temperature %', msg #>> '{Data,time}', msg #>> '{Data,temp}';
    -- The number too: behind the last record of a shard that was split there is no iterator, and without both it would
    -- begin anew.
    asked := asked || jsonb_build_object('SequenceNumber', sequenceNumber, 'NextShardIterator', msg ->> 'NextShardIterator');
  END LOOP;
  RETURN sequenceNumber;
END
$$;

SELECT processSensorReadings('') IS NOT NULL AS processed;

-- Today: the stream is rows, of all shards, and each row comes once. Three lines.
CREATE TABLE sensor_readings (reading_time timestamp, temperature numeric);

INSERT INTO sensor_readings
SELECT (r ->> 'time')::timestamp, (r ->> 'temp')::numeric
  FROM awslambda.kinesis_poll('sensor_readings', 'MySensorReadings'), awslambda.try_jsonb(data) AS r;

TABLE sensor_readings;
