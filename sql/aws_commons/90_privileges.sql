-- Nothing is granted to PUBLIC: USAGE on the schema and EXECUTE on its functions are all that a role needs. Types keep
-- the USAGE that Postgres gives to PUBLIC; only who has USAGE on the schema can name them.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA aws_commons FROM PUBLIC;
