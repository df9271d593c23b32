-- plpython3u by a name of our own. What an RDS database's dump says is CREATE EXTENSION aws_lambda, without CASCADE and
-- after aws_commons alone: so nothing that is not on RDS can be required, and no script creates another extension.

CREATE FUNCTION aws_lambda._python_call_handler() RETURNS language_handler
LANGUAGE c AS '$libdir/plpython3', 'plpython3_call_handler';

CREATE FUNCTION aws_lambda._python_inline_handler(internal) RETURNS void
LANGUAGE c STRICT AS '$libdir/plpython3', 'plpython3_inline_handler';

CREATE FUNCTION aws_lambda._python_validator(oid) RETURNS void
LANGUAGE c STRICT AS '$libdir/plpython3', 'plpython3_validator';

CREATE LANGUAGE aws_lambda_python  -- noqa: PRS
  HANDLER aws_lambda._python_call_handler
  INLINE aws_lambda._python_inline_handler
  VALIDATOR aws_lambda._python_validator;

COMMENT ON FUNCTION aws_lambda._python_call_handler() IS 'Private to the language aws_lambda_python.';
COMMENT ON FUNCTION aws_lambda._python_inline_handler(internal) IS 'Private to the language aws_lambda_python.';
COMMENT ON FUNCTION aws_lambda._python_validator(oid) IS 'Private to the language aws_lambda_python.';
COMMENT ON LANGUAGE aws_lambda_python IS
  'Private to aws_lambda: plpython3u, which RDS dumps do not create. Not trusted: only a superuser can use it.';
