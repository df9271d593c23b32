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
            DETAIL = coalesce(format('It belongs to the extension %I.', owner), 'It belongs to no extension.'),
            HINT = coalesce(
              format('Two extensions cannot have this schema: what needs %I goes into another database, or DROP EXTENSION %I.', owner, owner),
              'If nothing needs what is left in it: DROP SCHEMA aws_commons CASCADE. Otherwise rename it: ALTER SCHEMA aws_commons RENAME TO ...');
  END IF;
END
$block$;

CREATE SCHEMA aws_commons;

COMMENT ON SCHEMA aws_commons IS
  'What RDS''s extensions share: the types of a Lambda function''s name, of an object in S3 and of credentials.';
