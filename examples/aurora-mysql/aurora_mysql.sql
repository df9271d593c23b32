-- Aurora MySQL's ways to call Lambda, over awslambda's. JSON may be json, jsonb, or text as CONCAT makes it.

CREATE FUNCTION lambda_sync(lambda_function_arn text, json_payload json) RETURNS json
LANGUAGE sql AS $$ SELECT awslambda_fn($1, $2) $$;

CREATE FUNCTION lambda_sync(lambda_function_arn text, json_payload jsonb) RETURNS jsonb
LANGUAGE sql AS $$ SELECT awslambda_fn($1, $2) $$;

CREATE FUNCTION lambda_sync(lambda_function_arn text, json_payload text) RETURNS json
LANGUAGE sql AS $$ SELECT awslambda_fn($1, $2)::json $$;

-- Returns the AWS request id.
CREATE FUNCTION lambda_async(lambda_function_arn text, json_payload json) RETURNS text
LANGUAGE sql AS $$ SELECT awslambda_fn_async($1, $2) $$;

CREATE FUNCTION lambda_async(lambda_function_arn text, json_payload jsonb) RETURNS text
LANGUAGE sql AS $$ SELECT awslambda_fn_async($1, $2) $$;

CREATE FUNCTION lambda_async(lambda_function_arn text, json_payload text) RETURNS text
LANGUAGE sql AS $$ SELECT awslambda_fn_async($1, $2) $$;

-- The procedure of Aurora MySQL 1 and 2.
CREATE SCHEMA mysql;

CREATE PROCEDURE mysql.lambda_async(lambda_function_arn text, lambda_function_input json)
LANGUAGE sql AS $$ SELECT awslambda_fn_async($1, $2) $$;

CREATE PROCEDURE mysql.lambda_async(lambda_function_arn text, lambda_function_input jsonb)
LANGUAGE sql AS $$ SELECT awslambda_fn_async($1, $2) $$;

CREATE PROCEDURE mysql.lambda_async(lambda_function_arn text, lambda_function_input text)
LANGUAGE sql AS $$ SELECT awslambda_fn_async($1, $2) $$;
