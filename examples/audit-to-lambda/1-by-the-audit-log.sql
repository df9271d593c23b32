-- The audit log of a MySQL database went to CloudWatch Logs, from there to the stream MyAuditLog, and by Lambda's event
-- source mapping to the function on-audit-log. The same stream, in SQL alone, each line once:
CREATE TABLE changes (at timestamptz, database text, statement text);

CREATE FUNCTION store_changes(records awslambda.kinesis_record[]) RETURNS void LANGUAGE sql AS $$
  INSERT INTO changes
  SELECT a.event_time, a.database, a.object
    FROM unnest(records) AS r
   CROSS JOIN LATERAL awslambda.cloudwatch_logs_events(r.data) AS e
   CROSS JOIN LATERAL awslambda.mysql_audit_event(e.message) AS a
   WHERE a.operation = 'QUERY' AND a.object ~* '^\s*(INSERT|UPDATE|DELETE)\M'
$$;

CALL awslambda.kinesis_consume('changes', 'MyAuditLog', handler => 'store_changes(awslambda.kinesis_record[])');

TABLE changes ORDER BY at;
