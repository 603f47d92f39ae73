-- Consumers. Nothing of a partition lies below first_seq; only retention moves it.
ALTER TABLE {schema}.partitions
    ADD COLUMN first_seq bigint NOT NULL DEFAULT 1;

-- A group takes all messages of a queue, or those accepted after subscription_from. No foreign keys: queues can be emptied as
-- before.
CREATE TABLE {schema}.consumer_groups (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue_id bigint NOT NULL,
    name text NOT NULL,
    subscription_from timestamptz,
    registered_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (queue_id, name)
);

-- How far a group has come in a partition; without a row it is at the beginning. No index but the key, so that all changes are
-- made in place. Everything up to cursor_seq is done.
--   leased   lease_id, and lease_seq is the last number that was handed out; free_at is the end of the lease
--   free     free_at is null, or not before when the rest may be taken; lease_id may name the last take without a lease,
--            lease_seq is where that began
-- acked has the numbers that are done ahead of the cursor, as the first and last of each range. retried: messages of the pair
-- may have rows in retries.
CREATE TABLE {schema}.cursors (
    partition_id bigint NOT NULL,
    group_id bigint NOT NULL,
    cursor_seq bigint NOT NULL DEFAULT 0,
    lease_id uuid,
    lease_seq bigint,
    free_at timestamptz,
    acked bigint[],
    retried boolean NOT NULL DEFAULT false,
    PRIMARY KEY (partition_id, group_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- How often a message failed in a group.
CREATE TABLE {schema}.retries (
    partition_id bigint NOT NULL,
    group_id bigint NOT NULL,
    seq bigint NOT NULL,
    attempts integer NOT NULL,
    error text,
    PRIMARY KEY (partition_id, group_id, seq)
);

-- Messages that a group gave up. They stay in messages as long as those do; a group alone takes them up again.
CREATE TABLE {schema}.consumer_letters (
    group_id bigint NOT NULL,
    partition_id bigint NOT NULL,
    seq bigint NOT NULL,
    attempts integer NOT NULL,
    error text,
    failed_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL,
    id uuid NOT NULL,
    trace_id uuid,
    transaction_key uuid,
    transaction_id text,
    producer_sub text,
    payload jsonb NOT NULL,
    PRIMARY KEY (group_id, partition_id, seq)
);
