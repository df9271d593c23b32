\echo Use "CREATE EXTENSION aws_lambda CASCADE" to load this file. \quit

-- Nothing here goes into the schema of the extension, which RDS shows as public; nothing is looked up there either.
SET LOCAL search_path = pg_catalog, pg_temp;

-- A schema of this name is somebody else's. Postgres would only say that it exists.
DO $block$
DECLARE
  owner name := (
    SELECT e.extname
      FROM pg_namespace n
      LEFT JOIN pg_depend d
        ON d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e'
      LEFT JOIN pg_extension e ON e.oid = d.refobjid
     WHERE n.nspname = 'aws_lambda');
BEGIN
  IF to_regnamespace('aws_lambda') IS NOT NULL THEN
    RAISE EXCEPTION 'cannot create the extension aws_lambda: there is a schema aws_lambda already'
      USING ERRCODE = 'duplicate_schema',
            DETAIL = CASE
              WHEN owner IS NULL THEN 'It belongs to no extension.'
              ELSE format('It belongs to the extension %I.', owner) END,
            HINT = CASE
              WHEN owner IS NULL THEN 'If it holds stand-ins for these functions, as for tests: DROP SCHEMA aws_lambda CASCADE.'
              ELSE format('Two extensions cannot both have it. If nothing needs the other: DROP EXTENSION %I. Otherwise use another database.', owner) END;
  END IF;
END
$block$;

CREATE SCHEMA aws_lambda;

COMMENT ON SCHEMA aws_lambda IS
  'AWS Lambda from SQL as on RDS and Aurora: aws_lambda.invoke.';
