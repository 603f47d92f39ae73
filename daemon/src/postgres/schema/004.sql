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
