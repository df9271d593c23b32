-- Nothing is granted to PUBLIC: USAGE on the schema and EXECUTE on all its functions are all that a role needs.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA aws_lambda FROM PUBLIC;
