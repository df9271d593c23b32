-- In Redshift: the table, and the COPY that Firehose runs for each of its files. Times have a T in them, as JSON's do, which is
-- not COPY's own format.
CREATE TABLE rs_temp_reading (reading_time timestamp, reading_value numeric(10, 2));

COPY rs_temp_reading FROM 's3://temperature-123456789012/2026/11/25/20/' IAM_ROLE DEFAULT FORMAT AS JSON 'auto' TIMEFORMAT 'auto';
