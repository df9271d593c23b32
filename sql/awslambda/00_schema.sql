\echo Use "CREATE EXTENSION awslambda CASCADE" to load this file. \quit

-- Plain, without IF NOT EXISTS: a schema that somebody made before us could hold objects of his.
CREATE SCHEMA awslambda;

COMMENT ON SCHEMA awslambda IS 'AWS Lambda from SQL: everything but the short forms awslambda_fn and awslambda_fn_async.';
