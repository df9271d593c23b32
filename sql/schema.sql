\echo Use "CREATE EXTENSION @EXTENSION@ CASCADE" to load this file. \quit

-- The beginning of every script. Nothing is looked up in the schema that WITH SCHEMA names, and nothing goes there unasked.
SET LOCAL search_path = pg_catalog, pg_temp;

-- A schema of the extension's name is somebody else's, and could hold objects of his. Postgres would only say that it exists.
DO $block$
DECLARE
  owner name := (
    SELECT e.extname
      FROM pg_namespace n
      JOIN pg_depend d ON d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e'
      JOIN pg_extension e ON e.oid = d.refobjid
     WHERE n.nspname = '@EXTENSION@');
BEGIN
  IF to_regnamespace('@EXTENSION@') IS NOT NULL THEN
    RAISE EXCEPTION 'cannot create the extension @EXTENSION@: there is a schema @EXTENSION@ already'
      USING ERRCODE = 'duplicate_schema',
            DETAIL = CASE
              WHEN owner IS NULL THEN 'It belongs to no extension.'
              ELSE format('It belongs to the extension %I.', owner) END,
            HINT = CASE
              WHEN owner IS NULL THEN 'If nothing needs what is in it, such as stand-ins for tests: DROP SCHEMA @EXTENSION@ CASCADE. Otherwise: ALTER SCHEMA @EXTENSION@ RENAME TO ...'
              ELSE format('Two extensions cannot both have it. If nothing needs the other: DROP EXTENSION %I. Otherwise use another database.', owner) END;
  END IF;
END
$block$;
