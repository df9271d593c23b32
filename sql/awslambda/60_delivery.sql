-- Delivery: what a dispatcher asks of the database. Python decides (outbox.py), these functions carry it out, for the
-- process and for CALL awslambda.dispatch alike. They run with the owner's rights, so that a dispatcher's role needs
-- EXECUTE on them and nothing else: they take ids, texts and numbers, no names of objects and no SQL.

-- Counters and the reason of a pause, a row a mapping; written once a second at most. 0: direct messages.
CREATE TABLE awslambda._state (
  mapping int PRIMARY KEY,
  delivered bigint NOT NULL DEFAULT 0,
  failed bigint NOT NULL DEFAULT 0,
  dead bigint NOT NULL DEFAULT 0,
  last_error text,
  last_error_at timestamptz,
  paused_reason text,
  paused_until timestamptz
);

-- What each dispatcher is sending. A row counts while the session of its pid holds a slot.
CREATE TABLE awslambda._sending (
  pid int,
  mapping int,
  host text NOT NULL,
  batches int NOT NULL,
  PRIMARY KEY (pid, mapping)
);

CREATE OR REPLACE FUNCTION awslambda._back_off(
  attempts int  -- how often the record has failed
)
RETURNS interval
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
  SELECT random() * least(interval '15 min', interval '1 s' * 2 ^ least(attempts - 1, 20))
$function$;

COMMENT ON FUNCTION awslambda._back_off(int) IS
  'How long a record waits after a failure: full jitter below 1 s, 2 s, 4 s ... 15 min.';

-- Who owns what: a slot belongs to the session that holds the advisory lock (1635218284, slot), and each dispatcher
-- holds (1635218284, 64) shared. The number is "awsl" in ASCII.
CREATE OR REPLACE FUNCTION awslambda._slots(
  OUT dispatchers int,  -- how many there are, this session included
  OUT taken int[]       -- slots that any session holds
)
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
  SELECT count(*) FILTER (WHERE l.objid = 64), coalesce(array_agg(l.objid::int) FILTER (WHERE l.objid < 64), '{}')
    FROM pg_locks AS l
   WHERE l.locktype = 'advisory' AND l.classid = 1635218284 AND l.objsubid = 2 AND l.granted
     AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
$function$;

CREATE OR REPLACE FUNCTION awslambda._claim(
  slots int[]  -- to take as far as they are free; 64: to be counted as a dispatcher
)
RETURNS int[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  claimed int[] := '{}';
  slot int;
BEGIN
  FOREACH slot IN ARRAY slots LOOP
    IF (CASE slot WHEN 64 THEN pg_try_advisory_lock_shared(1635218284, 64) ELSE pg_try_advisory_lock(1635218284, slot) END) THEN
      claimed := claimed || slot;
    END IF;
  END LOOP;
  PERFORM awslambda._wake(claimed);
  RETURN claimed;
END
$function$;

-- What waits behind a record that is gone (deleted by hand, say) is next.
CREATE OR REPLACE FUNCTION awslambda._wake(
  slots int[]  -- that this session holds
)
RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  PERFORM awslambda._promote(b.mapping, b.keys)
    FROM (SELECT o.mapping, array_agg(DISTINCT o.key) AS keys FROM awslambda.outbox AS o
           WHERE o.due_at = 'infinity' AND awslambda._slot(o.key, o.message_id) = ANY (slots) GROUP BY o.mapping) AS b;
END
$function$;

CREATE OR REPLACE FUNCTION awslambda._release(
  slots int[]
)
RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  slot int;
BEGIN
  FOR slot IN
    SELECT l.objid FROM pg_locks AS l
     WHERE l.locktype = 'advisory' AND l.classid = 1635218284 AND l.objsubid = 2 AND l.pid = pg_backend_pid()
       AND l.objid = ANY (slots::oid[])
  LOOP
    IF slot = 64 THEN
      PERFORM pg_advisory_unlock_shared(1635218284, 64);
      DELETE FROM awslambda._sending AS s WHERE s.pid = pg_backend_pid();
    ELSE
      PERFORM pg_advisory_unlock(1635218284, slot);
    END IF;
  END LOOP;
END
$function$;

CREATE OR REPLACE FUNCTION awslambda._mappings()
RETURNS json
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
  SELECT coalesce(json_agg(json_build_object(
           'id', m.id, 'version', m.xmin::text, 'name', m.name, 'function_name', m.function_name, 'role', m.role, 'enabled', m.enabled,
           'event_format', m.event_format, 'server', m.server, 'invocation_type', m.invocation_type,
           'batch_size', m.batch_size,
           'window', extract(epoch FROM m.maximum_batching_window)::float8,
           'parallelization_factor', m.parallelization_factor,
           'maximum_retry_attempts', m.maximum_retry_attempts,
           'maximum_record_age', CASE WHEN m.maximum_record_age >= '0' AND m.maximum_record_age < '1000 years'
             THEN extract(epoch FROM m.maximum_record_age)::float8 END,
           'bisect', m.bisect_batch_on_function_error,
           'report_failures', 'ReportBatchItemFailures' = ANY (m.function_response_types),
           'on_failure', m.on_failure, 'keep_results', m.keep_results IS NOT NULL,
           -- A mapping that was changed after that is not paused any more.
           'paused_reason', CASE WHEN age(s.xmin) <= age(m.xmin) THEN s.paused_reason END,
           'paused_for', extract(epoch FROM s.paused_until - clock_timestamp())::float8)), '[]')
    FROM awslambda.event_source_mapping AS m
    LEFT JOIN awslambda._state AS s ON s.mapping = m.id
$function$;

-- One look at what is ready and what is due. The order of its statements is what delivery's promises rest on, since in
-- READ COMMITTED each has its own snapshot:
--   1. the last id drawn; 2. the transactions that run: one that drew an id up to that one, and is not among them, has
--   ended before 3. the records. A later look may begin above that id as long as those transactions still run, and a
--   look from below has seen what the others left (outbox.Floor).
CREATE OR REPLACE FUNCTION awslambda._look(
  slots bigint,     -- that this session holds: slot 0 is the lowest bit
  mappings int[],   -- to look at; 0: direct messages
  floors bigint[],  -- of each: ready records have larger ids
  limits int[]      -- of each: ready, and due, records at most
)
RETURNS json
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off  -- a nearly empty table with many dead rows must not change the plan
SET enable_bitmapscan = off
SET jit = off
AS $function$
DECLARE
  last bigint := (SELECT CASE WHEN s.is_called THEN s.last_value ELSE s.last_value - 1 END FROM awslambda.outbox_id_seq AS s);
  running bigint[] := ARRAY(
    SELECT l.transactionid::text::bigint FROM pg_locks AS l
     WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted);
  moment timestamptz := clock_timestamp();
  found record;
BEGIN
  -- mapping + 0: so that outbox_behind is the only index for it, whatever the planner believes of the others.
  SELECT pg_current_snapshot()::text AS snapshot,
         array_agg(r.id) FILTER (WHERE r.behind) AS behind,
         array_agg(r.mapping) FILTER (WHERE r.behind) AS behind_mappings,
         array_agg(r.key) FILTER (WHERE r.behind AND r.is_due) AS keys,
         array_agg(r.mapping) FILTER (WHERE r.behind AND r.is_due) AS keys_mappings,
         string_agg(concat('[', r.mapping, ',', r.id, ',', coalesce(hashtextextended(r.key, 0)::text, 'null'), ',',
           awslambda._slot(r.key, r.message_id), ',', octet_length(r.payload::text), ',', r.attempts, ',', date_part('epoch', r.enqueued_at), ',', r.is_due::int, ',', r.behind::int, ',',
           CASE WHEN r.mapping = 0 THEN json_build_array(
             r.function_name, r.invocation_type, r.server, r.role, r.keep_results IS NOT NULL)::text ELSE 'null' END, ']'),
           ',' ORDER BY r.id) AS records
    INTO found
    FROM (SELECT m.*, EXISTS (SELECT FROM awslambda.outbox AS w WHERE w.mapping = m.mapping AND w.due_at IS NOT NULL) AS some_wait
            FROM unnest(mappings, floors, limits) AS m (mapping, floor, most) OFFSET 0) AS m
   CROSS JOIN LATERAL (
     (SELECT o.*, false AS is_due, o.key IS NOT NULL AND m.some_wait AND EXISTS (
               SELECT FROM awslambda.outbox AS p
                WHERE p.due_at IS NOT NULL AND hashtextextended(p.key, p.mapping) = hashtextextended(o.key, o.mapping)
                  AND p.id < o.id AND p.key = o.key AND p.mapping + 0 = o.mapping) AS behind
        FROM awslambda.outbox AS o
       WHERE o.mapping = m.mapping AND o.id > m.floor AND (slots = -1 OR (slots >> awslambda._slot(o.key, o.message_id)) & 1 = 1) AND o.due_at IS NULL
       ORDER BY o.mapping, o.id
       LIMIT m.most)
     UNION ALL
     (SELECT o.*, true, o.key IS NOT NULL AND EXISTS (
               SELECT FROM awslambda.outbox AS p
                WHERE p.due_at > o.due_at AND hashtextextended(p.key, p.mapping) = hashtextextended(o.key, o.mapping)
                  AND p.id < o.id AND p.key = o.key AND p.mapping + 0 = o.mapping)
        FROM awslambda.outbox AS o
       WHERE o.mapping = m.mapping AND o.due_at <= moment AND (slots = -1 OR (slots >> awslambda._slot(o.key, o.message_id)) & 1 = 1)
       ORDER BY o.mapping, o.due_at, o.id
       LIMIT m.most)) AS r;
  IF found.behind IS NOT NULL THEN
    UPDATE awslambda.outbox AS o
       SET due_at = 'infinity'
      FROM unnest(found.behind_mappings, found.behind) AS b (mapping, id)
     WHERE o.mapping = b.mapping AND o.id = b.id;
    -- It may have been the last of its key that was to come by itself.
    PERFORM awslambda._promote(b.mapping, b.keys)
      FROM (SELECT k.mapping, array_agg(DISTINCT k.key) AS keys
              FROM unnest(found.keys_mappings, found.keys) AS k (mapping, key) GROUP BY k.mapping) AS b;
  END IF;
  RETURN json_build_object(
    'last', last, 'running', running, 'snapshot', found.snapshot, 'now', extract(epoch FROM clock_timestamp()),
    'flushed', pg_current_wal_insert_lsn() <= pg_current_wal_flush_lsn(),
    'records', concat('[', found.records, ']')::json);
END
$function$;

-- A record is sent when the WAL that holds it is on disk: what a crash can take back must not have been sent.
CREATE OR REPLACE FUNCTION awslambda._flush()
RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  PERFORM set_config('synchronous_commit', 'local', true);
  PERFORM pg_logical_emit_message(true, 'awslambda', '');
END
$function$;

-- The next records of keys: those that waited behind one that is gone now, where none is before them.
CREATE OR REPLACE FUNCTION awslambda._promote(
  mapping int,
  keys text[]
)
RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $function$
  UPDATE awslambda.outbox AS o
     SET due_at = now()  -- the same for all of them: by it their order is told
    FROM unnest($2) AS k (key)
   CROSS JOIN LATERAL (
     SELECT n.id FROM awslambda.outbox AS n
      WHERE n.due_at IS NOT NULL AND hashtextextended(n.key, n.mapping) = hashtextextended(k.key, $1)
        AND n.key = k.key AND n.mapping + 0 = $1 AND n.due_at = 'infinity'
      ORDER BY n.id LIMIT 200) AS n
   WHERE EXISTS (SELECT FROM awslambda.outbox AS w WHERE w.mapping = $1 AND w.due_at = 'infinity')  -- looked at once
     AND o.mapping = $1 AND o.id = n.id
     AND NOT EXISTS (
       SELECT FROM awslambda.outbox AS f
        WHERE f.due_at IS NOT NULL AND hashtextextended(f.key, f.mapping) = hashtextextended(k.key, $1)
          AND f.key = k.key AND f.mapping + 0 = $1 AND f.due_at < 'infinity')
$function$;

-- What has become of records, all in one transaction.
CREATE OR REPLACE FUNCTION awslambda._settle(
  settlement json  -- as outbox.Settlement
)
RETURNS boolean    -- whether its COMMIT flushes the WAL
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $function$
DECLARE
  one record;
  gone text[];
  until timestamptz;
BEGIN
  PERFORM set_config('synchronous_commit', 'local', true);
  -- Kept results first: they need the rows that are deleted next.
  FOR one IN SELECT * FROM json_to_recordset(settlement -> 'results') AS r (mapping int, ids bigint[], payload text, function_error text) LOOP
    INSERT INTO awslambda._result (message_id, role, payload, function_error, expires_at)
    SELECT o.message_id, coalesce(m.role, o.role), one.payload, one.function_error, clock_timestamp() + coalesce(o.keep_results, m.keep_results)
      FROM awslambda.outbox AS o
      LEFT JOIN awslambda.event_source_mapping AS m ON m.id = o.mapping
     WHERE o.mapping = one.mapping AND o.id = ANY (one.ids) AND coalesce(o.keep_results, m.keep_results) IS NOT NULL
        ON CONFLICT (message_id) DO UPDATE
       SET payload = excluded.payload, function_error = excluded.function_error,
           finished_at = excluded.finished_at, expires_at = excluded.expires_at;
  END LOOP;

  FOR one IN SELECT * FROM json_to_recordset(settlement -> 'done') AS r (mapping int, ids bigint[]) LOOP
    WITH deleted AS (
      DELETE FROM awslambda.outbox AS o WHERE o.mapping = one.mapping AND o.id = ANY (one.ids) RETURNING o.key)
    SELECT array_agg(DISTINCT d.key) INTO gone FROM deleted AS d;
    PERFORM awslambda._promote(one.mapping, gone);
  END LOOP;

  FOR one IN
    SELECT * FROM json_to_recordset(settlement -> 'dead')
      AS r (mapping int, ids bigint[], counted boolean, reason text, error text, destination_error text)
  LOOP
    WITH deleted AS (
        DELETE FROM awslambda.outbox AS o WHERE o.mapping = one.mapping AND o.id = ANY (one.ids) RETURNING o.*),
      buried AS (
        INSERT INTO awslambda.dead_letter (
          message_id, mapping, key, payload, role, enqueued_at, attempts, function_name, invocation_type, server,
          keep_results, reason, last_error, destination_error)
        SELECT d.message_id, d.mapping, d.key, d.payload, d.role, d.enqueued_at, d.attempts + one.counted::int,
               d.function_name, d.invocation_type, d.server, d.keep_results, one.reason, one.error, one.destination_error
          FROM deleted AS d)
    SELECT array_agg(DISTINCT d.key) INTO gone FROM deleted AS d;
    PERFORM awslambda._promote(one.mapping, gone);
  END LOOP;

  -- Those of one batch wait equally long, so that their order stays.
  FOR one IN
    SELECT * FROM json_to_recordset(settlement -> 'retry')
      AS r (mapping int, ids bigint[], attempts int, counted boolean, error text)
  LOOP
    until := clock_timestamp() + awslambda._back_off(one.attempts);
    UPDATE awslambda.outbox AS o
       SET due_at = until, attempts = o.attempts + one.counted::int, last_error = one.error
     WHERE o.mapping = one.mapping AND o.id = ANY (one.ids);
  END LOOP;

  FOR one IN SELECT * FROM json_to_recordset(settlement -> 'behind') AS r (mapping int, ids bigint[]) LOOP
    UPDATE awslambda.outbox AS o SET due_at = 'infinity' WHERE o.mapping = one.mapping AND o.id = ANY (one.ids);
  END LOOP;

  INSERT INTO awslambda._state AS s (mapping, delivered, failed, dead, last_error, last_error_at, paused_reason, paused_until)
  SELECT r.mapping, r.delivered, r.failed, r.dead, r.error, CASE WHEN r.error IS NOT NULL THEN clock_timestamp() END,
         r.paused_reason, clock_timestamp() + interval '1 s' * r.paused_for
    FROM json_to_recordset(settlement -> 'state')
      AS r (mapping int, delivered bigint, failed bigint, dead bigint, error text, paused_reason text, paused_for float8)
      ON CONFLICT (mapping) DO UPDATE
     SET delivered = s.delivered + excluded.delivered, failed = s.failed + excluded.failed, dead = s.dead + excluded.dead,
         last_error = coalesce(excluded.last_error, s.last_error),
         last_error_at = coalesce(excluded.last_error_at, s.last_error_at),
         paused_reason = excluded.paused_reason, paused_until = excluded.paused_until;

  IF settlement ->> 'sending' IS NOT NULL THEN
    DELETE FROM awslambda._result AS r WHERE r.expires_at < now();
    DELETE FROM awslambda._sending AS s
     WHERE s.pid = pg_backend_pid() OR NOT EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.pid = s.pid);
    INSERT INTO awslambda._sending (pid, mapping, host, batches)
    SELECT pg_backend_pid(), r.mapping, settlement ->> 'host', r.batches
      FROM json_to_recordset(settlement -> 'sending') AS r (mapping int, batches int);
  END IF;
  RETURN pg_current_xact_id_if_assigned() IS NOT NULL;
END
$function$;

CREATE OR REPLACE PROCEDURE awslambda.dispatch(
  max_duration interval DEFAULT '50 s'  -- after which nothing new is sent; what is in flight is finished
)
LANGUAGE plpython3u
AS $python$
@LOAD@
plpython.dispatch(plpy, max_duration)
$python$;

COMMENT ON PROCEDURE awslambda.dispatch(interval) IS  -- noqa: LT01
  'Delivers what is in the outbox, as the program `awslambda dispatch` does, from psql or pg_cron: until nothing is due or max_duration has passed. Not in a transaction block (2D000). No transaction is open while functions run.';

CREATE VIEW awslambda.status WITH (security_barrier) AS
WITH mappings AS (
  SELECT m.id, m.name, m.source, m.function_name, m.enabled, m.role FROM awslambda.event_source_mapping AS m
   WHERE pg_catalog.pg_has_role(m.role::oid, 'USAGE')
      OR pg_catalog.has_function_privilege('awslambda._settle(json)', 'EXECUTE')
  UNION ALL
  SELECT 0, NULL, NULL, NULL, true, NULL
   WHERE pg_catalog.has_function_privilege('awslambda._settle(json)', 'EXECUTE'))
SELECT m.name AS mapping, m.source, m.function_name, m.enabled,
       waiting.pending, sending.in_flight, waiting.oldest_age,
       coalesce(s.delivered, 0) AS delivered, coalesce(s.failed, 0) AS failed,
       dead.dead, s.last_error, s.last_error_at, s.paused_reason, s.paused_until,
       sending.dispatchers
  FROM mappings AS m
  LEFT JOIN awslambda._state AS s ON s.mapping = m.id
 CROSS JOIN LATERAL (
   SELECT count(*) AS pending, CASE WHEN count(*) > 0 THEN clock_timestamp() - least(min(o.enqueued_at), clock_timestamp()) END AS oldest_age
     FROM awslambda.outbox AS o WHERE o.mapping = m.id) AS waiting
 CROSS JOIN LATERAL (
   SELECT count(*) AS dead FROM awslambda.dead_letter AS d WHERE d.mapping = m.id) AS dead
 CROSS JOIN LATERAL (
   SELECT coalesce(sum(i.batches), 0) AS in_flight, array_agg(i.pid || '@' || i.host) AS dispatchers
     FROM awslambda._sending AS i JOIN pg_catalog.pg_stat_activity AS a ON a.pid = i.pid
    WHERE i.mapping = m.id) AS sending;

COMMENT ON VIEW awslambda.status IS
  'Delivery of each mapping that the current user may see; all, and direct messages (mapping is NULL), for a dispatcher''s role. pending: records in the outbox; in_flight: batches that are being sent; delivered and failed: records and attempts so far, up to a second old; dead: dead letters.';
