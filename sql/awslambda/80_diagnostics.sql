-- What a DBA wants to know when a call fails.

CREATE OR REPLACE FUNCTION awslambda.diagnostics(
  server text DEFAULT NULL  -- NULL: the one that a call of this role would use
)
RETURNS TABLE ("check" text, status text, detail text, hint text)
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
@LOAD@
return plpython.diagnostics(plpy, server)
$python$;

COMMENT ON FUNCTION awslambda.diagnostics(text) IS
  'Checks all that a call needs, from the Python interpreter to the endpoint, without calling a function: one row for each check, status ok, warning or error. Shows no secrets.';
