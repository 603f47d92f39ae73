-- Consumers. Nothing of a partition lies below first_seq; only retention moves it.
ALTER TABLE {schema}.partitions
    ADD COLUMN first_seq bigint NOT NULL DEFAULT 1;

-- A group takes all messages of a queue, or those accepted after subscription_from.
CREATE TABLE {schema}.consumer_groups (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue_id bigint NOT NULL REFERENCES {schema}.queues (id) ON DELETE CASCADE,
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
-- acked has the numbers that are done ahead of the cursor, as the first and last of each range.
CREATE TABLE {schema}.cursors (
    partition_id bigint NOT NULL,
    group_id bigint NOT NULL,
    cursor_seq bigint NOT NULL DEFAULT 0,
    lease_id uuid,
    lease_seq bigint,
    free_at timestamptz,
    acked bigint[],
    PRIMARY KEY (partition_id, group_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
