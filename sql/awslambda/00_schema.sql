CREATE SCHEMA awslambda;

COMMENT ON SCHEMA awslambda IS 'AWS Lambda from SQL: everything but the short forms awslambda_fn and awslambda_fn_async.';
