-- Version 2: what commands beside the bridge ask for. They write nothing else; the bridge's writer
-- does it with its next tick or at its next start, in its own transaction, and deletes the row.
CREATE TABLE wishes (
    id    INTEGER PRIMARY KEY,
    kind  TEXT    NOT NULL,               -- replayed, release
    value INTEGER NOT NULL                -- how many; which event
) STRICT;
