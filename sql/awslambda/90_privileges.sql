-- grant_usage is the one place that knows what a caller needs. (sql/revoke.sql takes everything from everybody else.)

CREATE OR REPLACE FUNCTION awslambda.grant_usage(
  role regrole  -- who is to call functions
)
RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  callable CONSTANT regprocedure[] := ARRAY[
    '@extschema@.awslambda_fn(text, text)', '@extschema@.awslambda_fn(text, json)', '@extschema@.awslambda_fn(text, jsonb)',
    '@extschema@.awslambda_fn_async(text, text)', '@extschema@.awslambda_fn_async(text, json)',
    '@extschema@.awslambda_fn_async(text, jsonb)',
    '@extschema@.awslambda_fn_on_commit(text, text)', '@extschema@.awslambda_fn_on_commit(text, json)',
    '@extschema@.awslambda_fn_on_commit(text, jsonb)',
    'awslambda.invoke(text, jsonb, text, text, jsonb, text, text, text)',
    'awslambda.enqueue(text, jsonb, text, interval, text, text, interval)',
    'awslambda._enqueue(text, json, text, interval, text, text, interval)',
    'awslambda._may_call(text, text)', 'awslambda._partition(text)',
    'awslambda.redrive(uuid[])', 'awslambda.purge(uuid[])', 'awslambda.result(uuid, interval)',
    'awslambda.diagnostics(text)'];
  one regprocedure;
BEGIN
  IF role IS NULL THEN
    RAISE null_value_not_allowed USING MESSAGE = 'role must not be NULL.';
  END IF;
  EXECUTE format('GRANT USAGE ON SCHEMA awslambda, %s TO %s', '@extschema@'::regnamespace, role);
  EXECUTE format('GRANT USAGE ON TYPE awslambda.invocation TO %s', role);
  FOREACH one IN ARRAY callable LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', one, role);
  END LOOP;
  -- Which rows, says row security.
  EXECUTE format(
    'GRANT SELECT ON awslambda.outbox, awslambda.dead_letter, awslambda._result, awslambda.event_source_mapping TO %s', role);
  EXECUTE format(
    'GRANT INSERT (function_name, payload, key, due_at, invocation_type, server, keep_results) ON awslambda.outbox TO %s', role);
  EXECUTE format('GRANT UPDATE (attempts), DELETE ON awslambda.dead_letter TO %s', role);
  EXECUTE format('GRANT DELETE ON awslambda._result TO %s', role);
END
$function$;

COMMENT ON FUNCTION awslambda.grant_usage(regrole) IS
  'Grants a role what it needs to call Lambda functions: USAGE on the schemas, EXECUTE on the functions. Where servers exist it needs USAGE on one of them too: GRANT USAGE ON FOREIGN SERVER ... TO ...';

-- The one place that knows what a dispatcher needs: all of it SECURITY DEFINER, or granted nothing by itself.
CREATE OR REPLACE FUNCTION awslambda.grant_dispatch(
  role regrole  -- who is to run awslambda dispatch, or CALL awslambda.dispatch
)
RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  callable CONSTANT regprocedure[] := ARRAY[
    'awslambda._check_home()'];
  one regprocedure;
BEGIN
  IF role IS NULL THEN
    RAISE null_value_not_allowed USING MESSAGE = 'role must not be NULL.';
  END IF;
  EXECUTE format('GRANT USAGE ON SCHEMA awslambda TO %s', role);
  FOREACH one IN ARRAY callable LOOP
    EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', one, role);
  END LOOP;
END
$function$;

COMMENT ON FUNCTION awslambda.grant_dispatch(regrole) IS
  'Grants a role what a dispatcher needs, and nothing else: USAGE on the schema awslambda, EXECUTE on the functions of the delivery. It calls functions with the rights of those who sent the messages. arm() is not among them.';
