CREATE OR REPLACE VIEW {schema}.message_log AS
    SELECT q.name AS queue, p.name AS partition, m.seq, m.id,
           COALESCE(m.transaction_id, m.transaction_key::text, m.id::text) AS transaction_id,
           m.trace_id, m.payload, m.created_at
    FROM {schema}.messages m
    JOIN {schema}.partitions p ON p.id = m.partition_id
    JOIN {schema}.queues q ON q.id = p.queue_id;

CREATE OR REPLACE VIEW {schema}.dead_letters_log AS
    SELECT queue, partition, transaction_id, payload_text, error, failed_at, source
    FROM {schema}.dead_letters;
