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
    'awslambda.map(text, jsonb[], int, boolean, text, jsonb, text, text, text)',
    'awslambda.enqueue(text, jsonb, text, interval, text, text, interval)',
    'awslambda._enqueue(text, json, text, interval, text, text, interval)',
    'awslambda._partition(text)',
    'awslambda.redrive(uuid[])', 'awslambda.purge(uuid[])', 'awslambda.result(uuid, interval)',
    'awslambda.diagnostics(text)',
    'awslambda.try_jsonb(bytea)', 'awslambda.cloudwatch_logs_events(bytea, boolean)', 'awslambda.mysql_audit_event(text, text)',
    'awslambda.kinesis_put_records(text, bytea[], text[], numeric[], text)',
    'awslambda.kinesis_read(text, text, timestamptz, numeric, text[], bigint, int, interval, boolean, text, text)',
    'awslambda.kinesis_poll(text, text, text, timestamptz, numeric, bigint, int, interval, boolean, text, text)',
    'awslambda.kinesis_consume(text, text, regclass, regprocedure, text, timestamptz, numeric, int, interval, text, boolean, boolean, boolean, text, text)',
    'awslambda.kinesis_reset(text, text, text, timestamptz, numeric, text[])',
    'awslambda.kinesis_copy_consumer(text, text, text)', 'awslambda.kinesis_delete_consumer(text, text)',
    'awslambda.create_event_source_mapping(regclass, text, text, boolean, text[], text[], text, text[], text, text, text, int, interval, int, int, interval, boolean, text[], text, interval)',
    'awslambda.update_event_source_mapping(text, text, boolean, text[], text[], text, text[], text, text, text, int, interval, int, int, interval, boolean, text[], text, interval)',
    'awslambda.delete_event_source_mapping(text)',
    -- What those, row security and the check of a mapping run with the rights of the caller.
    'awslambda._buried(int)', 'awslambda._filter(text)', 'awslambda._may_call(text, text)',
    'awslambda._may_map(regclass, text, text)', 'awslambda._owns(regclass)', 'awslambda._primary_key(regclass)',
    'awslambda._stored(regclass)',
    'awslambda._kinesis_poll(text, text, text, timestamptz, numeric, bigint, int, interval, boolean, text, text)',
    'awslambda._kinesis_lock(text, text, text)', 'awslambda._kinesis_unlock(text, text)', 'awslambda._kinesis_follow(text, text, text, json, text, timestamptz, numeric)',
    'awslambda._kinesis_ready(text, text, text)', 'awslambda._kinesis_begin(text, text, text, bigint)',
    'awslambda._kinesis_advance(text, text, text, text, numeric, bigint, timestamptz, bigint, timestamptz, bigint, boolean, text)',
    'awslambda._kinesis_insert(regclass)', 'awslambda._kinesis_call(regprocedure)',
    'awslambda._kinesis_statement(regclass, regprocedure)', 'awslambda._kinesis_hold(text, text, text[])',
    'awslambda._kinesis_store(text, text, text, awslambda.kinesis_record[], text, boolean, text)',
    'awslambda._kinesis_bury(text, text, awslambda.kinesis_record[], text, text)',
    'awslambda._kinesis_step(text, text, text, text, awslambda.kinesis_record[], regclass, regprocedure, text, boolean, bigint, timestamptz, boolean, text, text)'];
  one regprocedure;
BEGIN
  IF role IS NULL THEN
    RAISE null_value_not_allowed USING MESSAGE = 'role must not be NULL.';
  END IF;
  EXECUTE format('GRANT USAGE ON SCHEMA awslambda, %s TO %s', '@extschema@'::regnamespace, role);
  EXECUTE format('GRANT USAGE ON TYPE awslambda.invocation, awslambda.kinesis_record TO %s', role);
  EXECUTE format('GRANT DELETE ON awslambda.event_source_mapping TO %s', role);
  EXECUTE format(
    'GRANT INSERT (%1$s), UPDATE (%1$s, role) ON awslambda.event_source_mapping TO %2$s',
    'name, source, function_name, enabled, operations, columns, filter, key, event_format, server, invocation_type, batch_size, maximum_batching_window, parallelization_factor, maximum_retry_attempts, maximum_record_age, bisect_batch_on_function_error, function_response_types, on_failure, keep_results',
    role);
  FOREACH one IN ARRAY callable LOOP
    EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', one, role);
  END LOOP;
  -- Which rows, says row security.
  EXECUTE format(
    'GRANT SELECT ON awslambda.outbox, awslambda.dead_letter, awslambda._result, awslambda.event_source_mapping, awslambda.status TO %s',
    role);
  EXECUTE format(
    'GRANT INSERT (function_name, payload, key, enqueued_at, due_at, invocation_type, server, keep_results) ON awslambda.outbox TO %s', role);
  EXECUTE format('GRANT UPDATE (attempts), DELETE ON awslambda.dead_letter TO %s', role);
  EXECUTE format('GRANT DELETE ON awslambda._result TO %s', role);
  EXECUTE format(
    'GRANT SELECT, INSERT, UPDATE, DELETE ON awslambda._kinesis_consumer, awslambda._kinesis_checkpoint TO %s', role);
  EXECUTE format('GRANT SELECT, INSERT, DELETE ON awslambda.kinesis_dead_letter TO %s', role);
  EXECUTE format('GRANT SELECT ON awslambda.kinesis_consumer TO %s', role);
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
    'awslambda._check_home()', 'awslambda._slots()', 'awslambda._claim(int[])', 'awslambda._wake(int[])', 'awslambda._release(int[])',
    'awslambda._mappings()', 'awslambda._look(bigint, int[], bigint[], int[])', 'awslambda._flush()',
    'awslambda._batch(int, bigint[])', 'awslambda._messages(bigint[])', 'awslambda._settle(json)', 'awslambda.dispatch(interval)'];
  one regprocedure;
BEGIN
  IF role IS NULL THEN
    RAISE null_value_not_allowed USING MESSAGE = 'role must not be NULL.';
  END IF;
  EXECUTE format('GRANT USAGE ON SCHEMA awslambda TO %s', role);
  FOREACH one IN ARRAY callable LOOP
    EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', one, role);
  END LOOP;
  EXECUTE format('GRANT SELECT ON awslambda.status TO %s', role);
END
$function$;

COMMENT ON FUNCTION awslambda.grant_dispatch(regrole) IS
  'Grants a role what a dispatcher needs, and nothing else: USAGE on the schema awslambda, EXECUTE on the functions of the delivery. It calls functions with the rights of those who sent the messages. arm() is not among them.';
