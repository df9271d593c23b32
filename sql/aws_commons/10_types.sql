-- Types and their constructors by RDS's names, so that tables with such columns and calls by named argument carry over.

CREATE TYPE aws_commons._lambda_function_arn_1 AS (
  function_name text,  -- name, name:qualifier, partial or full ARN
  region text          -- NULL: the ARN's, the server's, the instance's
);

COMMENT ON TYPE aws_commons._lambda_function_arn_1 IS
  'A Lambda function and its region; made by aws_commons.create_lambda_function_arn, taken by aws_lambda.invoke.';

CREATE TYPE aws_commons._s3_uri_1 AS (
  bucket text,
  file_path text,
  region text
);

COMMENT ON TYPE aws_commons._s3_uri_1 IS
  'An object in S3; made by aws_commons.create_s3_uri. Here for tables and code that have it: nothing in awslambda uses it.';

CREATE TYPE aws_commons._aws_credentials_1 AS (
  access_key text,
  secret_key text,
  session_token text
);

COMMENT ON TYPE aws_commons._aws_credentials_1 IS
  'AWS credentials; made by aws_commons.create_aws_credentials. Here for code that has it: nothing in awslambda uses it, and keys do not belong into SQL.';

CREATE OR REPLACE FUNCTION aws_commons.create_lambda_function_arn(
  function_name text,       -- name, name:qualifier, partial or full ARN
  region text DEFAULT NULL  -- NULL: the ARN's, the server's, the instance's
)
RETURNS aws_commons._lambda_function_arn_1
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
  SELECT $1, $2
$function$;

COMMENT ON FUNCTION aws_commons.create_lambda_function_arn(text, text) IS
  'A Lambda function and its region, for aws_lambda.invoke. Takes what it is given: invoke says whether it is a name.';

CREATE OR REPLACE FUNCTION aws_commons.create_s3_uri(bucket text, file_path text, region text)
RETURNS aws_commons._s3_uri_1
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
  SELECT $1, $2, $3
$function$;

COMMENT ON FUNCTION aws_commons.create_s3_uri(text, text, text) IS 'An object in S3.';

CREATE OR REPLACE FUNCTION aws_commons.create_aws_credentials(access_key text, secret_key text, session_token text)
RETURNS aws_commons._aws_credentials_1
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
  SELECT $1, $2, $3
$function$;

COMMENT ON FUNCTION aws_commons.create_aws_credentials(text, text, text) IS 'AWS credentials.';
