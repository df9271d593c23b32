-- Many calls of a Lambda function at once, and their answers as rows.

CREATE OR REPLACE FUNCTION awslambda.map(
  function_name text,                                -- name, name:qualifier, partial or full ARN
  payloads jsonb[],                                  -- of a call each, at most 6 MB, or 1 MB for Event
  max_concurrency int DEFAULT 32,                    -- calls at once: 1 to 256
  ordered boolean DEFAULT true,                      -- rows in the order of payloads; false: as the calls end
  invocation_type text DEFAULT 'RequestResponse',    -- or 'Event', 'DryRun'
  client_context jsonb DEFAULT NULL,                 -- of all calls: {"custom": {...}, "env": {...}}, at most 3583 bytes in base64
  qualifier text DEFAULT NULL,                       -- version or alias
  server text DEFAULT NULL,                          -- NULL: the one that this role may use, or aws
  region text DEFAULT NULL                           -- NULL: the ARN's, the server's, the instance's
)
RETURNS TABLE (
  ordinality bigint,                                 -- of the call's payload in payloads, from 1
  status_code int,                                   -- 200 RequestResponse, 202 Event, 204 DryRun; NULL: Lambda gave no answer
  payload jsonb,                                     -- what the function returned, or its error object
  executed_version text,                             -- version that ran, also behind an alias
  function_error text,                               -- 'Unhandled' or 'Handled' if the function failed, else NULL
  request_id text,                                   -- as in the function's log
  duration interval,                                 -- from sending to the answer's last byte
  sqlstate text,                                     -- of what awslambda_fn would have raised; NULL: the call succeeded
  error_message text                                 -- of the same
)
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $python$
@LOAD@
return plpython.map(plpy, function_name, payloads, max_concurrency, ordered, invocation_type, client_context, qualifier, server, region)
$python$;

COMMENT ON FUNCTION awslambda.map(text, jsonb[], int, boolean, text, jsonb, text, text, text) IS
  'Calls a Lambda function once for each payload, many calls at once, and returns a row for each. A call that fails is a row with sqlstate, as of awslambda_fn (LA001 the function raised, LA003 throttled, LA005 no answer within request_timeout ...; 22004 for a NULL in payloads), and no other call is lost by it; what may have run is not sent again. What keeps all calls from being sent is an error: 42501 not allowed by USAGE or allowed_resources, 28000 no credentials, 22004, 22023. At most twice max_concurrency calls are under way or held at a time. Call it in FROM; LIMIT does not reach it there. https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html';
