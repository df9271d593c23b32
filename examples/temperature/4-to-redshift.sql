-- The same rows to a warehouse: a function puts each batch into Firehose, which copies to Redshift's table rs_temp_reading.
CREATE TABLE temp_reading_warehouse (id bigserial PRIMARY KEY, reading_time timestamp, reading_value numeric);

SELECT awslambda.create_event_source_mapping(
         'temp_reading_warehouse', 'lambdaTempReadingFirehose', operations => '{INSERT}', batch_size => 500);

INSERT INTO temp_reading_warehouse (reading_time, reading_value) SELECT * FROM temp_reading;
CALL awslambda.dispatch();
