-- Who pushed a message: sub of the JWT that it came with, null where it came with none. The views stay as they are documented.
ALTER TABLE {schema}.messages
    ADD COLUMN producer_sub text;
ALTER TABLE {schema}.dead_letters
    ADD COLUMN producer_sub text;
