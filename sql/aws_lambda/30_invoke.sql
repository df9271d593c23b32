-- aws_lambda.invoke in RDS's overloads, two for the six arguments of its documentation, and two for payloads without a
-- type.
--
-- An IN and an OUT argument are both called payload, which PL/pgSQL refuses: so the overloads are SQL with $n. RDS's
-- error texts need RAISE, since what Python raises has its class before the message: so _call is PL/pgSQL. All of
-- them have the caller's rights, and so does the choice of the server.

CREATE OR REPLACE FUNCTION aws_lambda._invoke(
  function_name text,
  payload text,
  is_json boolean,            -- whether payload and context come from json or jsonb
  region text,
  invocation_type text,
  log_type text,
  context text,
  qualifier text,
  connect_timeout_ms text,    -- as current_setting(..., true) has it: NULL or '' if it is not set
  request_timeout_ms text,
  OUT status_code integer,
  OUT result text,
  OUT executed_version text,
  OUT log_result text,
  OUT error_code text,        -- SQLSTATE; NULL if the call succeeded
  OUT error_message text,
  OUT error_detail text,
  OUT error_hint text
)
LANGUAGE aws_lambda_python VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
@LOAD@
return plpython.rds_invoke(plpy, function_name, payload, is_json, region, invocation_type, log_type, context, qualifier,
                           connect_timeout_ms, request_timeout_ms)
$python$;

COMMENT ON FUNCTION aws_lambda._invoke(text, text, boolean, text, text, text, text, text, text, text) IS
  'Private to aws_lambda.invoke: the call, whose failure is in the row. An interrupt is raised as ever.';

CREATE OR REPLACE FUNCTION aws_lambda._call(
  function_name text,
  payload text,
  is_json boolean,
  region text,
  invocation_type text,
  log_type text,
  context text,
  qualifier text,
  OUT status_code integer,
  OUT result text,
  OUT executed_version text,
  OUT log_result text
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  answer record;
BEGIN
  SELECT * INTO answer
    FROM aws_lambda._invoke(
      function_name, payload, is_json, region, invocation_type, log_type, context, qualifier,
      current_setting('aws_lambda.connect_timeout_ms', true), current_setting('aws_lambda.request_timeout_ms', true));
  IF answer.error_code IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = answer.error_code, MESSAGE = answer.error_message,
      DETAIL = answer.error_detail, HINT = answer.error_hint;
  END IF;
  status_code := answer.status_code;
  result := answer.result;
  executed_version := answer.executed_version;
  log_result := answer.log_result;
END
$function$;

COMMENT ON FUNCTION aws_lambda._call(text, text, boolean, text, text, text, text, text) IS
  'Private to aws_lambda.invoke: the call, with the errors that RDS has.';

CREATE OR REPLACE FUNCTION aws_lambda.invoke(
  function_name text,                              -- name, name:qualifier, partial or full ARN
  payload json,                                    -- at most 6 MB, or 1 MB for Event
  region text DEFAULT NULL,                        -- NULL: the ARN's, the server's, the instance's
  invocation_type text DEFAULT 'RequestResponse',  -- or 'Event', 'DryRun'
  log_type text DEFAULT 'None',                    -- or 'Tail'
  context json DEFAULT NULL,                       -- client context: {"custom": {...}, "env": {...}}
  qualifier varchar(128) DEFAULT NULL,             -- version or alias
  OUT status_code integer,                         -- 200 RequestResponse, 202 Event, 204 DryRun
  OUT payload json,                                -- what the function returned; NULL for Event and DryRun
  OUT executed_version text,                       -- version that ran, also behind an alias
  OUT log_result text                              -- last 4 KB of the log in base64, with log_type 'Tail'
)
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
  SELECT c.status_code, c.result::json, c.executed_version, c.log_result
    FROM aws_lambda._call($1, $2::text, true, $3, $4, $5, $6::text, $7) AS c
$function$;

COMMENT ON FUNCTION aws_lambda.invoke(text, json, text, text, text, json, varchar) IS
  'Calls a Lambda function, as on RDS: the function by name or ARN. Raises lambda invocation failed (LA001, LA002) if the function fails, and invoke API failed with the SQLSTATEs of awslambda.invoke if the call does. Not undone by ROLLBACK.';

CREATE OR REPLACE FUNCTION aws_lambda.invoke(
  function_name text,                              -- name, name:qualifier, partial or full ARN
  payload jsonb,                                   -- at most 6 MB, or 1 MB for Event
  region text DEFAULT NULL,                        -- NULL: the ARN's, the server's, the instance's
  invocation_type text DEFAULT 'RequestResponse',  -- or 'Event', 'DryRun'
  log_type text DEFAULT 'None',                    -- or 'Tail'
  context jsonb DEFAULT NULL,                      -- client context: {"custom": {...}, "env": {...}}
  qualifier varchar(128) DEFAULT NULL,             -- version or alias
  OUT status_code integer,                         -- 200 RequestResponse, 202 Event, 204 DryRun
  OUT payload jsonb,                               -- what the function returned; NULL for Event and DryRun
  OUT executed_version text,                       -- version that ran, also behind an alias
  OUT log_result text                              -- last 4 KB of the log in base64, with log_type 'Tail'
)
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
  SELECT c.status_code, c.result::jsonb, c.executed_version, c.log_result
    FROM aws_lambda._call($1, $2::text, true, $3, $4, $5, $6::text, $7) AS c
$function$;

COMMENT ON FUNCTION aws_lambda.invoke(text, jsonb, text, text, text, jsonb, varchar) IS
  'As aws_lambda.invoke(text, json, ...), with jsonb.';

CREATE OR REPLACE FUNCTION aws_lambda.invoke(
  function_name aws_commons._lambda_function_arn_1,  -- from create_lambda_function_arn
  payload json,                                      -- at most 6 MB, or 1 MB for Event
  invocation_type text DEFAULT 'RequestResponse',    -- or 'Event', 'DryRun'
  log_type text DEFAULT 'None',                      -- or 'Tail'
  context json DEFAULT NULL,                         -- client context: {"custom": {...}, "env": {...}}
  qualifier varchar(128) DEFAULT NULL,               -- version or alias
  OUT status_code integer,                           -- 200 RequestResponse, 202 Event, 204 DryRun
  OUT payload json,                                  -- what the function returned; NULL for Event and DryRun
  OUT executed_version text,                         -- version that ran, also behind an alias
  OUT log_result text                                -- last 4 KB of the log in base64, with log_type 'Tail'
)
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
  SELECT c.status_code, c.result::json, c.executed_version, c.log_result
    FROM aws_lambda._call(($1).function_name, $2::text, true, ($1).region, $3, $4, $5::text, $6) AS c
$function$;

COMMENT ON FUNCTION aws_lambda.invoke(aws_commons._lambda_function_arn_1, json, text, text, json, varchar) IS
  'As aws_lambda.invoke(text, json, ...), with the function from aws_commons.create_lambda_function_arn and without region.';

CREATE OR REPLACE FUNCTION aws_lambda.invoke(
  function_name aws_commons._lambda_function_arn_1,  -- from create_lambda_function_arn
  payload jsonb,                                     -- at most 6 MB, or 1 MB for Event
  invocation_type text DEFAULT 'RequestResponse',    -- or 'Event', 'DryRun'
  log_type text DEFAULT 'None',                      -- or 'Tail'
  context jsonb DEFAULT NULL,                        -- client context: {"custom": {...}, "env": {...}}
  qualifier varchar(128) DEFAULT NULL,               -- version or alias
  OUT status_code integer,                           -- 200 RequestResponse, 202 Event, 204 DryRun
  OUT payload jsonb,                                 -- what the function returned; NULL for Event and DryRun
  OUT executed_version text,                         -- version that ran, also behind an alias
  OUT log_result text                                -- last 4 KB of the log in base64, with log_type 'Tail'
)
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
  SELECT c.status_code, c.result::jsonb, c.executed_version, c.log_result
    FROM aws_lambda._call(($1).function_name, $2::text, true, ($1).region, $3, $4, $5::text, $6) AS c
$function$;

COMMENT ON FUNCTION aws_lambda.invoke(aws_commons._lambda_function_arn_1, jsonb, text, text, jsonb, varchar) IS
  'As aws_lambda.invoke(text, json, ...), with jsonb, the function from aws_commons.create_lambda_function_arn and without region.';

-- Six arguments that RDS documents, and says of that the function is not unique: Postgres prefers text for a literal
-- without a type, and of RDS's own overloads one has json fifth, the other sixth. What reads a function's name as text
-- sees whether it is (name,region). Who names an argument or passes another number of them never comes here.

CREATE OR REPLACE FUNCTION aws_lambda.invoke(
  function_name text,              -- as psql's \gset makes it of aws_commons.create_lambda_function_arn
  payload json,
  type_or_region text,             -- with (name,region) before it the first of each pair counts, otherwise the second
  log_type_or_type text,
  context_or_log_type text,
  qualifier_or_context text,
  OUT status_code integer,
  OUT payload json,
  OUT executed_version text,
  OUT log_result text
)
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
  SELECT c.status_code, c.result::json, c.executed_version, c.log_result
    FROM aws_lambda._call($1, $2::text, false, $3, $4, $5, $6, NULL) AS c
$function$;

COMMENT ON FUNCTION aws_lambda.invoke(text, json, text, text, text, text) IS
  'As aws_lambda.invoke with json, for six arguments that are literals without a type but for the payload, as in RDS''s documentation. By name the others are called.';

CREATE OR REPLACE FUNCTION aws_lambda.invoke(
  function_name text,              -- as psql's \gset makes it of aws_commons.create_lambda_function_arn
  payload jsonb,
  type_or_region text,             -- with (name,region) before it the first of each pair counts, otherwise the second
  log_type_or_type text,
  context_or_log_type text,
  qualifier_or_context text,
  OUT status_code integer,
  OUT payload jsonb,
  OUT executed_version text,
  OUT log_result text
)
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
  SELECT c.status_code, c.result::jsonb, c.executed_version, c.log_result
    FROM aws_lambda._call($1, $2::text, false, $3, $4, $5, $6, NULL) AS c
$function$;

COMMENT ON FUNCTION aws_lambda.invoke(text, jsonb, text, text, text, text) IS
  'As aws_lambda.invoke with jsonb, for six arguments that are literals without a type but for the payload, as in RDS''s documentation. By name the others are called.';

-- RDS does not have these two: a payload without a type is ambiguous there, one of type text is refused. json and jsonb
-- are never cast to text by themselves, so no call that RDS takes comes here.

CREATE OR REPLACE FUNCTION aws_lambda.invoke(
  function_name text,                              -- name, name:qualifier, partial or full ARN
  payload text,                                    -- at most 6 MB, or 1 MB for Event
  region text DEFAULT NULL,                        -- NULL: the ARN's, the server's, the instance's
  invocation_type text DEFAULT 'RequestResponse',  -- or 'Event', 'DryRun'
  log_type text DEFAULT 'None',                    -- or 'Tail'
  context text DEFAULT NULL,                       -- client context: {"custom": {...}, "env": {...}}
  qualifier varchar(128) DEFAULT NULL,             -- version or alias
  OUT status_code integer,                         -- 200 RequestResponse, 202 Event, 204 DryRun
  OUT payload json,                                -- what the function returned; NULL for Event and DryRun
  OUT executed_version text,                       -- version that ran, also behind an alias
  OUT log_result text                              -- last 4 KB of the log in base64, with log_type 'Tail'
)
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
  SELECT c.status_code, c.result::json, c.executed_version, c.log_result
    FROM aws_lambda._call($1, $2, false, $3, $4, $5, $6, $7) AS c
$function$;

COMMENT ON FUNCTION aws_lambda.invoke(text, text, text, text, text, text, varchar) IS
  'As aws_lambda.invoke(text, json, ...), for a payload without a type; RDS does not have this one.';

CREATE OR REPLACE FUNCTION aws_lambda.invoke(
  function_name aws_commons._lambda_function_arn_1,  -- from create_lambda_function_arn
  payload text,                                      -- at most 6 MB, or 1 MB for Event
  invocation_type text DEFAULT 'RequestResponse',    -- or 'Event', 'DryRun'
  log_type text DEFAULT 'None',                      -- or 'Tail'
  context text DEFAULT NULL,                         -- client context: {"custom": {...}, "env": {...}}
  qualifier varchar(128) DEFAULT NULL,               -- version or alias
  OUT status_code integer,                           -- 200 RequestResponse, 202 Event, 204 DryRun
  OUT payload json,                                  -- what the function returned; NULL for Event and DryRun
  OUT executed_version text,                         -- version that ran, also behind an alias
  OUT log_result text                                -- last 4 KB of the log in base64, with log_type 'Tail'
)
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
  SELECT c.status_code, c.result::json, c.executed_version, c.log_result
    FROM aws_lambda._call(($1).function_name, $2, false, ($1).region, $3, $4, $5, $6) AS c
$function$;

COMMENT ON FUNCTION aws_lambda.invoke(aws_commons._lambda_function_arn_1, text, text, text, text, varchar) IS
  'As aws_lambda.invoke(aws_commons._lambda_function_arn_1, json, ...), for a payload without a type; RDS does not have this one.';
