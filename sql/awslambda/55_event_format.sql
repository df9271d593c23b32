-- Batches: what a function gets of the records of the outbox, in the format of the mapping.

-- Text is put together, and json never parsed: this is on the way of every record.
CREATE OR REPLACE FUNCTION awslambda._batch(
  mapping int,
  wanted bigint[]
)
RETURNS TABLE (
  body text,
  ids bigint[],        -- of those that are still there, in the order of the body
  message_ids uuid[]
)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SECURITY DEFINER  -- who delivers reads every record, and no table
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  source awslambda.event_source_mapping;
  arn_of_function text[];
  arn_of_role text;
  region text;
  account text;
  fifo boolean;
  event_source text := '';  -- the members that all records of the batch share
BEGIN
  SELECT m.* INTO source FROM awslambda.event_source_mapping AS m WHERE m.id = $1;

  -- Region and account as the mapping knows them. Neither is sent by Postgres anywhere: 'local' and zeros stand for what is not known.
  IF source.event_format IN ('sqs', 'kinesis') THEN
    SELECT max(option.option_value) FILTER (WHERE option.option_name = 'region'),
           max(option.option_value) FILTER (WHERE option.option_name = 'role_arn')
      INTO region, arn_of_role
      FROM (
        SELECT s.srvoptions
          FROM pg_foreign_server AS s
          JOIN pg_foreign_data_wrapper AS w
            ON w.oid = s.srvfdw AND w.fdwvalidator = 'awslambda._validate_server_options(text[], oid)'::regprocedure
         WHERE s.srvname = source.server OR (source.server IS NULL AND has_server_privilege(source.role, s.oid, 'USAGE'))
         ORDER BY s.srvname = 'aws' DESC
         LIMIT 1
      ) AS server
     CROSS JOIN LATERAL pg_options_to_table(server.srvoptions) AS option;
    arn_of_function := regexp_match(source.function_name, '^(?:arn:[^:]*:lambda:([^:]*):)?([0-9]{12}):function:');
    region := coalesce(arn_of_function[1], region, 'local');
    account := coalesce(arn_of_function[2], substring(arn_of_role FROM '^arn:[^:]*:iam::([0-9]{12}):'), '000000000000');
    fifo := source.key IS NOT NULL OR EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = source.source AND i.indisprimary);
    event_source := format(
      CASE source.event_format
        WHEN 'sqs' THEN ',"eventSource":"aws:sqs","eventSourceARN":%s,"awsRegion":%s}'
        ELSE ',"invokeIdentityArn":%3$s,"awsRegion":%2$s,"eventSourceARN":%1$s}'
      END,
      to_json(format(
        CASE source.event_format WHEN 'sqs' THEN 'arn:%s:sqs:%s:%s:%s%s' ELSE 'arn:%s:kinesis:%s:%s:stream/%s' END,
        CASE WHEN region LIKE 'cn-%' THEN 'aws-cn' WHEN region LIKE 'us-gov-%' THEN 'aws-us-gov' ELSE 'aws' END,
        region, account, regexp_replace(source.name, '[^a-zA-Z0-9_-]', '-', 'g'), CASE WHEN fifo THEN '.fifo' END)),
      to_json(region),
      to_json(coalesce(arn_of_role, format('arn:aws:iam::%s:role/%s', account, source.role::text))));
  END IF;

  SELECT concat(
           '{"Records":[',
           string_agg(
             CASE source.event_format
               WHEN 'sqs' THEN concat(
                 '{"messageId":"', o.message_id, '","receiptHandle":"', o.message_id, '/', o.attempts + 1,
                 '","body":', to_json(o.record),
                 ',"attributes":{"ApproximateReceiveCount":"', o.attempts + 1, '","SentTimestamp":"', o.milliseconds,
                 CASE WHEN fifo THEN concat('","SequenceNumber":"', o.id, '","MessageGroupId":', to_json(coalesce(o.key, o.message_id::text)),
                   ',"SenderId":') ELSE '","SenderId":' END, to_json(o.role::text),
                 CASE WHEN fifo THEN concat(',"MessageDeduplicationId":"', o.message_id, '"') END,
                 ',"ApproximateFirstReceiveTimestamp":"', o.milliseconds,
                 '"},"messageAttributes":{},"md5OfBody":"', md5(convert_to(o.record, 'UTF8')), '"', event_source)
               WHEN 'kinesis' THEN concat(
                 '{"kinesis":{"kinesisSchemaVersion":"1.0","partitionKey":', to_json(coalesce(o.key, o.message_id::text)),
                 ',"sequenceNumber":"', o.id,
                 '","data":"', replace(encode(convert_to(o.record, 'UTF8'), 'base64'), e'\n', ''),
                 '","approximateArrivalTimestamp":', o.milliseconds / 1000, '.', lpad((o.milliseconds % 1000)::text, 3, '0'),
                 '},"eventSource":"aws:kinesis","eventVersion":"1.0","eventID":"shardId-', lpad(awslambda._slot(o.key, o.message_id)::text, 12, '0'), ':', o.id,
                 '","eventName":"aws:kinesis:record"', event_source)
               ELSE o.record
             END, ','),
           ']}'),
         coalesce(array_agg(o.id), '{}'),
         coalesce(array_agg(o.message_id), '{}')
    INTO body, ids, message_ids
    FROM (
      SELECT p.id, p.message_id, p.key, p.role, p.attempts,
             CASE WHEN source.event_format <> 'postgresql' THEN floor(date_part('epoch', p.enqueued_at) * 1000)::bigint END AS milliseconds,
             concat(
               '{"eventID":"', p.message_id, '","eventSource":"postgresql",',
               CASE
                 WHEN p.payload::text LIKE '{"%}' THEN left(right(p.payload::text, -1), -1) || ','
                 -- What no trigger of ours wrote.
                 WHEN json_typeof(p.payload) <> 'object' THEN concat('"payload":', p.payload, ',')
                 ELSE regexp_replace(regexp_replace(p.payload::text, '^\s*\{\s*|\s*\}\s*$', '', 'g'), '(.)$', '\1,')
               END,
               '"sequence":', p.id, ',"attempt":', p.attempts + 1, '}') AS record
        FROM awslambda.outbox AS p
       WHERE p.mapping = $1 AND p.id = ANY (wanted)
       ORDER BY p.id
      OFFSET 0  -- keeps this a query of its own: the record is put together once, not once a mention
    ) AS o;
  RETURN NEXT;
END
$function$;

COMMENT ON FUNCTION awslambda._batch(int, bigint[]) IS
  'What a function gets: the records with these ids as {"Records": [...]} in the event_format of their mapping, in order of id.';

-- Direct messages, many at once.
CREATE OR REPLACE FUNCTION awslambda._messages(wanted bigint[])
RETURNS TABLE (
  id bigint,
  body text,  -- NULL, as the next: there is no such message
  message_id uuid
)
LANGUAGE sql STABLE PARALLEL UNSAFE
SECURITY DEFINER  -- who delivers reads every record, and no table
SET search_path = pg_catalog, pg_temp
AS $function$
  SELECT w.id, o.payload::text, o.message_id
    FROM unnest(wanted) WITH ORDINALITY AS w (id, place)
    LEFT JOIN awslambda.outbox AS o ON o.mapping = 0 AND o.id = w.id
   ORDER BY w.place
$function$;

COMMENT ON FUNCTION awslambda._messages(bigint[]) IS
  'The payloads of direct messages, in this order.';
