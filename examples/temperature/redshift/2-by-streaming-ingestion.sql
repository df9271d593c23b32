-- In Redshift: the same readings from a Kinesis stream, without files and within seconds. In PostgreSQL, for the stream:
-- SELECT awslambda.kinesis_put_records('readings', array_agg(convert_to(to_json(r)::text, 'UTF8'))) FROM temp_reading AS r
CREATE EXTERNAL SCHEMA kds FROM KINESIS IAM_ROLE DEFAULT;

CREATE MATERIALIZED VIEW rs_temp_reading_stream AUTO REFRESH YES AS
SELECT approximate_arrival_timestamp, shard_id, sequence_number,
       json_parse(kinesis_data) AS reading
  FROM kds.readings
 WHERE can_json_parse(kinesis_data);

SELECT reading.reading_time::timestamp, reading.reading_value::numeric(10, 2) FROM rs_temp_reading_stream;
