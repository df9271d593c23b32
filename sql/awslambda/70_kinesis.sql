-- Kinesis streams as rows.

CREATE OR REPLACE FUNCTION awslambda.kinesis_read(
  stream text,                                         -- name or ARN
  starting_position text DEFAULT 'TRIM_HORIZON',       -- or LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, AFTER_SEQUENCE_NUMBER
  starting_timestamp timestamptz DEFAULT NULL,         -- for AT_TIMESTAMP
  starting_sequence_number numeric DEFAULT NULL,       -- for AT_ and AFTER_SEQUENCE_NUMBER, with the one shard that it is of
  shard_ids text[] DEFAULT NULL,                       -- NULL: all shards
  max_records bigint DEFAULT 10000,                    -- rows, after which the reading ends; NULL: as many as there are
  batch_size int DEFAULT 10000,                        -- records of one request: 1 to 10,000
  max_duration interval DEFAULT '30 s',                -- after which nothing more is asked for
  deaggregate boolean DEFAULT true,                    -- whether KPL aggregates become their user records
  decompress text DEFAULT 'auto',                      -- gzip and zlib become what is in them; 'gzip': all must be; 'none'
  server text DEFAULT NULL                             -- NULL: the one that this role may use, or aws
)
RETURNS TABLE (
  shard_id text,
  sequence_number numeric,                    -- in order within a shard; the same for all user records of an aggregate
  sub_sequence_number bigint,                 -- within an aggregate, from 0
  approximate_arrival_timestamp timestamptz,
  partition_key text,
  data bytea,
  millis_behind_latest bigint                 -- how far from the tip of the shard its page was
)
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE COST 100000 ROWS 10000
SET search_path = pg_catalog, pg_temp
AS $python$
@LOAD@
return plpython.kinesis_read(plpy, stream, starting_position, starting_timestamp, starting_sequence_number, shard_ids, max_records, batch_size, max_duration, deaggregate, decompress, server)
$python$;

COMMENT ON FUNCTION awslambda.kinesis_read(text, text, timestamptz, numeric, text[], bigint, int, interval, boolean, text, text) IS
  'Reads a Kinesis stream, and leaves no trace: all shards in turn, each in order and behind its parents, up to what is there now; LATEST waits for what comes, until max_duration. A page of at most 10 MiB is in memory at a time. LIMIT does not reach a function in FROM: max_records does. Errors: 42704 no such stream or shard, 42501, 28000, 22023, 22P03 a record that cannot be unpacked, LA003 throttled, LA004, LA005, 08001, 08006. https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html';

CREATE OR REPLACE FUNCTION awslambda.kinesis_put_records(
  stream text,                                -- name or ARN
  data bytea[],                               -- a record each
  partition_keys text[] DEFAULT NULL,         -- of the records, up to 256 characters; NULL: a random one, for any shard
  explicit_hash_keys numeric[] DEFAULT NULL,  -- of the records: 0 to 2^128 - 1, in the place of the key's hash
  server text DEFAULT NULL                    -- NULL: the one that this role may use, or aws
)
RETURNS TABLE (
  ordinality bigint,                          -- of the record in data, from 1
  shard_id text,
  sequence_number numeric,
  error_code text,                            -- NULL: it was put
  error_message text
)
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $python$
@LOAD@
return plpython.kinesis_put_records(plpy, stream, data, partition_keys, explicit_hash_keys, server)
$python$;

COMMENT ON FUNCTION awslambda.kinesis_put_records(text, bytea[], text[], numeric[], text) IS
  'Puts records into a Kinesis stream, now: a rollback does not undo it. In batches of 500 records and 10 MiB; a row for each record says where it went, or why it was not taken after max_attempts: put those again. What may have arrived (08006, LA005) is not put twice by itself. If the first batch fails as a whole, that is an error: as of kinesis_read, 54000 a record of more than 10 MiB. https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html';
