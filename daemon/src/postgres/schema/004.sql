-- All ids are bigint. The view lets go of the columns that change, and keeps its grants and what stands on it.
CREATE OR REPLACE VIEW {schema}.message_log AS
    SELECT NULL::text AS queue, NULL::text AS partition, NULL::bigint AS seq, NULL::uuid AS id,
           NULL::text AS transaction_id, NULL::uuid AS trace_id, NULL::jsonb AS payload, NULL::timestamptz AS created_at;
ALTER TABLE {schema}.queues ALTER COLUMN id TYPE bigint;
ALTER TABLE {schema}.partitions ALTER COLUMN queue_id TYPE bigint;
CREATE OR REPLACE VIEW {schema}.message_log AS
    SELECT q.name AS queue, p.name AS partition, m.seq, m.id,
           COALESCE(m.transaction_id, m.transaction_key::text, m.id::text) AS transaction_id,
           m.trace_id, m.payload, m.created_at
    FROM {schema}.messages m
    JOIN {schema}.partitions p ON p.id = m.partition_id
    JOIN {schema}.queues q ON q.id = p.queue_id;

-- Tries messages one after the other, each in a subtransaction, and returns those that fail and why; at last a row without a
-- code says how many were tried, until patience was over. Messages that do not fail are inserted. The drain calls it where
-- many messages are refused, and rolls back what it inserted.
CREATE FUNCTION {schema}.try_messages(
    partition_ids bigint[], seqs bigint[], accepted_us bigint[], ids uuid[], trace_ids uuid[], transaction_keys uuid[],
    transaction_ids text[], payloads text[], producer_subs text[], patience interval
) RETURNS TABLE (n bigint, code text, reason text, rule text) LANGUAGE plpgsql AS $function$
DECLARE
    message record;
    place text;
    stop_at timestamptz := clock_timestamp() + patience;
BEGIN
    FOR message IN
        SELECT * FROM unnest(partition_ids, seqs, accepted_us, ids, trace_ids, transaction_keys, transaction_ids, payloads,
                             producer_subs)
            WITH ORDINALITY v(partition_id, seq, accepted_us, id, trace_id, key, transaction_id, payload, producer_sub, i)
    LOOP
        n := message.i;
        BEGIN
            INSERT INTO {schema}.messages
                (partition_id, seq, created_at, id, trace_id, transaction_key, transaction_id, payload, producer_sub)
            VALUES (message.partition_id, message.seq,
                    timestamptz 'epoch' + message.accepted_us * interval '1 microsecond', message.id, message.trace_id,
                    message.key, message.transaction_id, message.payload::jsonb, message.producer_sub);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, reason = MESSAGE_TEXT, rule = CONSTRAINT_NAME,
                                    place = PG_EXCEPTION_CONTEXT;
            -- A trigger can meet a constraint of the same name, or name one: its function comes first then.
            IF position('INSERT INTO {schema}.messages' IN left(place, 80)) = 0 THEN
                rule := NULL;
            END IF;
            RETURN NEXT;
        END;
        EXIT WHEN clock_timestamp() > stop_at;
    END LOOP;
    code := NULL;
    RETURN NEXT;
END
$function$;

-- Who moved the checkpoint last: the incarnation of the daemon that has it, drawn at random at each start, and the random id of
-- its last round. A COMMIT whose answer was lost was carried out exactly if its round's id stands here. Both are null as an
-- earlier release left them.
ALTER TABLE {schema}.drain_checkpoints
    ADD COLUMN incarnation uuid,
    ADD COLUMN round_id uuid;

-- The data directory that has the checkpoints of a log. origin is the id in the log's files, which copies share; incarnations
-- lists the starts of its daemon with where the lanes ended then. Written with the statement that takes the checkpoint.
CREATE TABLE {schema}.log_owners (
    log_id uuid PRIMARY KEY,
    origin uuid NOT NULL,
    incarnation uuid NOT NULL,
    host text NOT NULL,
    directory text NOT NULL,
    incarnations jsonb NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now()
);
