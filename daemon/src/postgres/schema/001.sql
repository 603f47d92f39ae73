CREATE TABLE {schema}.queues (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    namespace text,
    task text,
    options jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);

-- One row is locked and updated by each drain transaction that touches the partition.
CREATE TABLE {schema}.partitions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue_id integer NOT NULL REFERENCES {schema}.queues (id),
    name text NOT NULL,
    last_seq bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (queue_id, name)
) WITH (fillfactor = 50);

-- No foreign key: it halves the drain. transaction_key is the transaction id itself where that is a UUID, then
-- transaction_id is null; else the first 128 bits of its BLAKE3 hash. Both are null where the client gave none.
CREATE TABLE {schema}.messages (
    partition_id bigint NOT NULL,
    seq bigint NOT NULL,
    created_at timestamptz NOT NULL,
    id uuid NOT NULL,
    trace_id uuid,
    transaction_key uuid,
    transaction_id text,
    payload jsonb NOT NULL,
    PRIMARY KEY (partition_id, seq)
);
CREATE UNIQUE INDEX messages_transaction ON {schema}.messages (partition_id, transaction_key)
    WHERE transaction_key IS NOT NULL;

CREATE TABLE {schema}.dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue text NOT NULL,
    partition text NOT NULL,
    message_id uuid,
    transaction_id text,
    payload_text text NOT NULL,
    sqlstate text NOT NULL,
    error text NOT NULL,
    source text NOT NULL,
    created_at timestamptz NOT NULL,
    failed_at timestamptz NOT NULL DEFAULT now()
);

-- How far the log log_id is drained: for each lane the position (segment << 32 | offset) and the ordinal behind which
-- nothing is left to do. Moved in the transaction that holds the rows, and only from the value that its mover knows.
CREATE TABLE {schema}.drain_checkpoints (
    log_id uuid NOT NULL,
    drainer integer NOT NULL,
    lanes integer[] NOT NULL,
    positions bigint[] NOT NULL,
    ordinals bigint[] NOT NULL,
    rounds bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (log_id, drainer)
) WITH (fillfactor = 50);
