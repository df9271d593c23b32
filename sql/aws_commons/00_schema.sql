\echo Use "CREATE EXTENSION aws_commons CASCADE" to load this file. \quit

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
     WHERE n.nspname = 'aws_commons');
BEGIN
  IF to_regnamespace('aws_commons') IS NOT NULL THEN
    RAISE EXCEPTION 'cannot create the extension aws_commons: there is a schema aws_commons already'
      USING ERRCODE = 'duplicate_schema',
            DETAIL = CASE
              WHEN owner IS NULL THEN 'It belongs to no extension.'
              ELSE format('It belongs to the extension %I.', owner) END,
            HINT = CASE
              WHEN owner IS NULL THEN 'If nothing needs what is left in it: DROP SCHEMA aws_commons CASCADE. Otherwise: ALTER SCHEMA aws_commons RENAME TO ...'
              ELSE format('Two extensions cannot both have it. If nothing needs the other: DROP EXTENSION %I. Otherwise use another database.', owner) END;
  END IF;
END
$block$;

CREATE SCHEMA aws_commons;

COMMENT ON SCHEMA aws_commons IS
  'What RDS''s extensions share: the types of a Lambda function''s name, of an object in S3 and of credentials.';
