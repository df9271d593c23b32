-- What is inside the records of a Kinesis stream.

CREATE OR REPLACE FUNCTION awslambda.try_jsonb(data bytea)
RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL UNSAFE  -- a subtransaction
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  RETURN convert_from(data, 'UTF8')::jsonb;
EXCEPTION WHEN data_exception OR statement_too_complex OR program_limit_exceeded THEN
  RETURN NULL;
END
$function$;

COMMENT ON FUNCTION awslambda.try_jsonb(bytea) IS
  'JSON in UTF-8 as jsonb; NULL if it is none, or none that jsonb can hold.';

CREATE OR REPLACE FUNCTION awslambda.cloudwatch_logs_events(
  data bytea,                              -- of a Kinesis record that CloudWatch Logs put; gzip or decompressed
  include_control boolean DEFAULT false    -- whether its tests of the stream (CONTROL_MESSAGE) are rows too
)
RETURNS TABLE (
  message_type text,
  owner text,                              -- the account
  log_group text,
  log_stream text,
  subscription_filters text[],
  id text,                                 -- of the event: the same when it is sent again
  "timestamp" timestamptz,
  message text,
  event jsonb                              -- all of it, with what the filter extracted
)
LANGUAGE plpython3u IMMUTABLE PARALLEL UNSAFE ROWS 100
SET search_path = pg_catalog, pg_temp
AS $python$
@LOAD@
return plpython.cloudwatch_logs_events(plpy, data, include_control)
$python$;

COMMENT ON FUNCTION awslambda.cloudwatch_logs_events(bytea, boolean) IS
  'The log events in a record that a subscription filter of CloudWatch Logs put into a stream. 22P03 if it is none. https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html';

CREATE OR REPLACE FUNCTION awslambda.mysql_audit_event(
  message text,                            -- a line of the audit log
  time_zone text DEFAULT 'UTC',            -- of the MySQL server, for those that write local time; Aurora does not
  OUT event_time timestamptz,
  OUT server_host text,
  OUT user_name text,
  OUT host text,
  OUT connection_id bigint,
  OUT query_id bigint,
  OUT operation text,                      -- CONNECT, FAILED_CONNECT, DISCONNECT, QUERY, READ, WRITE, CREATE, ALTER, RENAME, DROP
  OUT database text,
  OUT object text,                         -- the statement of a QUERY, else the table
  OUT return_code int,
  OUT connection_type int,
  OUT truncated boolean                    -- the closing quote of the statement is missing: it was cut off
)
LANGUAGE plpython3u STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
@LOAD@
return plpython.mysql_audit_event(plpy, message, time_zone)
$python$;

COMMENT ON FUNCTION awslambda.mysql_audit_event(text, text) IS
  'A line of the audit log of MariaDB, RDS for MySQL or Aurora MySQL in typed columns; all of them NULL if it is none. Lines are not in the order of time.';
