-- Servers: which AWS identity a call uses, where it goes, and what it may reach.

CREATE OR REPLACE FUNCTION awslambda._validate_server_options(
  options text[],   -- name=value
  catalog oid       -- of what the options belong to
)
RETURNS void
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
@LOAD@
plpython.validate_server_options(plpy, options, catalog)
$python$;

COMMENT ON FUNCTION awslambda._validate_server_options(text[], oid) IS
  'Validator of the foreign data wrapper awslambda: HV00D for an unknown option, 22023 for a bad value, 42501 for an option that only a superuser may set.';

CREATE FOREIGN DATA WRAPPER awslambda VALIDATOR awslambda._validate_server_options;  -- noqa: PRS

COMMENT ON FOREIGN DATA WRAPPER awslambda IS
  'Its servers say whose AWS identity calls use, where they go and what they may reach; USAGE on a server is the right to use it.';
