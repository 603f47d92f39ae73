-- What it takes to put a message back. payload_text is the payload itself where text can hold it; else that shows it in
-- hexadecimal digits, and payload_bytes has it. record_kind and what follows are null for what an earlier release set aside.
ALTER TABLE {schema}.dead_letters
    ADD COLUMN trace_id uuid,
    ADD COLUMN namespace text,
    ADD COLUMN task text,
    ADD COLUMN payload_bytes bytea,
    ADD COLUMN record_kind integer,
    ADD COLUMN log_id uuid,
    ADD COLUMN number bigint;

-- Which database the checkpoint was moved in: the server's system identifier and the database's oid as its daemon found
-- them when it connected last, null where it may not ask. A copy of the row in another database tells by them.
ALTER TABLE {schema}.drain_checkpoints
    ADD COLUMN system_identifier bigint,
    ADD COLUMN database_oid bigint;

-- Which backend served the drain's last session: the next one ends it, where it was lost and PostgreSQL did not hear of that.
ALTER TABLE {schema}.drain_checkpoints
    ADD COLUMN backend_pid integer,
    ADD COLUMN backend_start timestamptz;
