-- The end of every script. Nobody but the owner has anything here, whatever the default privileges of who runs this: grants come afterwards.
SET LOCAL search_path = pg_catalog, pg_temp;

DO $block$
DECLARE
  one record;
BEGIN
  FOR one IN
    SELECT m.kind, m.name, a.grantee
      FROM pg_depend AS d
      JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = '@EXTENSION@'
      JOIN (
        SELECT 'pg_proc'::regclass, p.oid, 'ROUTINE', p.oid::regprocedure::text,
               coalesce(p.proacl, acldefault('f', p.proowner)), p.proowner
          FROM pg_proc AS p
        UNION ALL
        SELECT 'pg_namespace'::regclass, n.oid, 'SCHEMA', n.oid::regnamespace::text,
               coalesce(n.nspacl, acldefault('n', n.nspowner)), n.nspowner
          FROM pg_namespace AS n
        UNION ALL
        SELECT 'pg_type'::regclass, t.oid, 'TYPE', t.oid::regtype::text,
               coalesce(t.typacl, acldefault('T', t.typowner)), t.typowner
          FROM pg_type AS t
         WHERE t.typelem = 0
        UNION ALL
        SELECT 'pg_class'::regclass, c.oid, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass::text,
               coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner)), c.relowner
          FROM pg_class AS c
         WHERE c.relkind <> 'c'
      ) AS m (catalog, oid, kind, name, acl, owner) ON m.catalog = d.classid AND m.oid = d.objid
     CROSS JOIN LATERAL aclexplode(m.acl) AS a
     WHERE d.deptype = 'e' AND a.grantee <> m.owner
     GROUP BY m.kind, m.name, a.grantee
  LOOP
    EXECUTE format(
      'REVOKE ALL ON %s %s FROM %s', one.kind, one.name,
      CASE WHEN one.grantee = 0 THEN 'PUBLIC' ELSE one.grantee::regrole::text END);
  END LOOP;
END
$block$;
