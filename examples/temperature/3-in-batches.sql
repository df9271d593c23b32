-- After commit, in batches: one call and one PutMetricData for many rows, and no trigger of our own.
CREATE TABLE temp_reading_batched (id bigserial PRIMARY KEY, reading_time timestamp, reading_value numeric);

SELECT awslambda.create_event_source_mapping(
         'temp_reading_batched', 'lambdaTempReadingBatch', operations => '{INSERT}', batch_size => 100);

INSERT INTO temp_reading_batched (reading_time, reading_value) SELECT * FROM temp_reading;
CALL awslambda.dispatch();

SELECT mapping, pending, delivered FROM awslambda.status WHERE mapping IS NOT NULL;
