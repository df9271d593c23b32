-- Calling a Lambda function, now, inside the transaction.

CREATE TYPE awslambda.invocation AS (
  status_code int,        -- 200 RequestResponse, 202 Event, 204 DryRun
  payload jsonb,          -- what the function returned, or its error object; NULL for Event and DryRun
  executed_version text,  -- version that ran, also behind an alias
  log_result text,        -- last 4 KB of the log, decoded, with log_type 'Tail'
  function_error text,    -- 'Unhandled' or 'Handled' if the function failed, else NULL
  request_id text,        -- as in the function's log
  duration interval       -- from sending to the answer's last byte
);

COMMENT ON TYPE awslambda.invocation IS 'What awslambda.invoke returns: the answer of Lambda''s Invoke.';

CREATE OR REPLACE FUNCTION awslambda.invoke(
  function_name text,                                -- name, name:qualifier, partial or full ARN
  payload jsonb,                                     -- at most 6 MB, or 1 MB for Event
  invocation_type text DEFAULT 'RequestResponse',    -- or 'Event', 'DryRun'
  log_type text DEFAULT 'None',                      -- or 'Tail'
  client_context jsonb DEFAULT NULL,                 -- {"custom": {...}, "env": {...}}, at most 3583 bytes in base64
  qualifier text DEFAULT NULL,                       -- version or alias
  server text DEFAULT NULL,                          -- NULL: the one that this role may use, or aws
  region text DEFAULT NULL                           -- NULL: the ARN's, the server's, the instance's
)
RETURNS awslambda.invocation
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $python$
@LOAD@
return plpython.invoke(plpy, function_name, payload, invocation_type, log_type, client_context, qualifier, server, region)
$python$;

COMMENT ON FUNCTION awslambda.invoke(text, jsonb, text, text, jsonb, text, text, text) IS
  'Lambda''s Invoke with all its arguments. Call it in FROM: (awslambda.invoke(...)).* calls once for each column. A function that fails is a row with function_error, not an error; whatever else fails is an error: LA003 throttled, LA004 AWS failed, LA005 no answer within request_timeout, 08001, 08006, 42704, 42501, 28000, 22P02, 54000, 22004, 22023. https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html';

-- The short forms are in a schema that may not be ours alone: CREATE without OR REPLACE takes over nobody's function.
CREATE FUNCTION @extschema@.awslambda_fn(
  fn_name text,  -- name, name:qualifier, partial or full ARN
  fn_args text   -- JSON, at most 6 MB
)
RETURNS text
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $python$
@LOAD@
return plpython.awslambda_fn(plpy, fn_name, fn_args, "text")
$python$;

CREATE FUNCTION @extschema@.awslambda_fn(fn_name text, fn_args json)
RETURNS json
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $python$
@LOAD@
return plpython.awslambda_fn(plpy, fn_name, fn_args, "json")
$python$;

CREATE FUNCTION @extschema@.awslambda_fn(fn_name text, fn_args jsonb)
RETURNS jsonb
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $python$
@LOAD@
return plpython.awslambda_fn(plpy, fn_name, fn_args, "jsonb")
$python$;

COMMENT ON FUNCTION @extschema@.awslambda_fn(text, text) IS
  'Calls a Lambda function, waits (RequestResponse) and returns its result. LA001 if the function raises, LA002 if it runs into its own timeout; otherwise the errors of awslambda.invoke. The call is not undone by ROLLBACK.';
COMMENT ON FUNCTION @extschema@.awslambda_fn(text, json) IS
  'As awslambda_fn(text, text), with json in and out.';
COMMENT ON FUNCTION @extschema@.awslambda_fn(text, jsonb) IS
  'As awslambda_fn(text, text), with jsonb in and out.';

CREATE FUNCTION @extschema@.awslambda_fn_async(
  fn_name text,  -- name, name:qualifier, partial or full ARN
  fn_args text   -- JSON, at most 1 MB
)
RETURNS text
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $python$
@LOAD@
return plpython.awslambda_fn_async(plpy, fn_name, fn_args, "text")
$python$;

CREATE FUNCTION @extschema@.awslambda_fn_async(fn_name text, fn_args json)
RETURNS text
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $python$
@LOAD@
return plpython.awslambda_fn_async(plpy, fn_name, fn_args, "json")
$python$;

CREATE FUNCTION @extschema@.awslambda_fn_async(fn_name text, fn_args jsonb)
RETURNS text
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $python$
@LOAD@
return plpython.awslambda_fn_async(plpy, fn_name, fn_args, "jsonb")
$python$;

COMMENT ON FUNCTION @extschema@.awslambda_fn_async(text, text) IS
  'Hands a call to Lambda (Event) and returns the AWS request id without waiting for the function, whose failure is seen in AWS only. Errors as of awslambda.invoke. The call is not undone by ROLLBACK.';
COMMENT ON FUNCTION @extschema@.awslambda_fn_async(text, json) IS
  'As awslambda_fn_async(text, text), with json.';
COMMENT ON FUNCTION @extschema@.awslambda_fn_async(text, jsonb) IS
  'As awslambda_fn_async(text, text), with jsonb.';
