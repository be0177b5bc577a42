-- The journal, version 1. Readable with any SQLite tool; the column names are the contract's words.

-- An event as received: written once, never changed, deleted by retention.
CREATE TABLE events (
    seq             INTEGER PRIMARY KEY,  -- order of receipt, never used again
    webhook_id      BLOB    NOT NULL,     -- UUID, 16 bytes
    webhook_index   INTEGER NOT NULL,     -- position in the array, from 0
    source          TEXT    NOT NULL,
    received_at     INTEGER NOT NULL,     -- microseconds since 1970
    traceparent     TEXT,
    tracestate      TEXT,
    message_id      BLOB    NOT NULL,     -- UUID, 16 bytes
    session         TEXT,                 -- NULL: a reject
    status          TEXT,                 -- as sent
    session_type    TEXT,
    previous_status TEXT,
    company         TEXT,
    reject_reason   TEXT,                 -- invalid, malformed
    reject_detail   TEXT,
    body            BLOB    NOT NULL
) STRICT;

-- What is not settled: one small row an event.
CREATE TABLE pending (
    seq      INTEGER PRIMARY KEY,
    source   TEXT    NOT NULL,
    session  TEXT,
    bytes    INTEGER NOT NULL,            -- of the body
    label    TEXT    NOT NULL,            -- routed status, or a reject's reason
    route    INTEGER NOT NULL,
    head     INTEGER NOT NULL,            -- 1: first unsettled event of its session
    due      INTEGER NOT NULL,            -- 0: at once; else milliseconds of the process that wrote it
    attempts INTEGER NOT NULL,            -- times published and refused
    reason   TEXT,                        -- of the dead letter it has become
    detail   TEXT,
    at       INTEGER                      -- since when, microseconds since 1970
) STRICT;
-- Finds what follows in a session, in order of seq. Sources are few: the session tells sooner.
CREATE INDEX pending_session ON pending (session, source);
-- The candidates for publishing, in order of due and seq: taking a window costs the window, not
-- the backlog.
CREATE INDEX pending_head ON pending (route, due) WHERE head = 1;

-- What is settled and still kept.
CREATE TABLE settled (
    seq      INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,            -- microseconds since 1970
    outcome  TEXT    NOT NULL,            -- published, or the reason of the dead letter
    attempts INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    kept     INTEGER NOT NULL             -- 1: exempt from retention (the body lies only here)
) STRICT;
CREATE INDEX settled_at ON settled (at) WHERE kept = 0;

CREATE TABLE routes (
    id          INTEGER PRIMARY KEY,
    exchange    TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    UNIQUE (exchange, routing_key)
) STRICT;

-- Counters that change in the same commits as what they count.
CREATE TABLE totals (
    name   TEXT    NOT NULL,              -- accepted, published, dead_lettered, backlog_events, …
    source TEXT    NOT NULL,
    label  TEXT    NOT NULL,
    value  INTEGER NOT NULL,
    PRIMARY KEY (name, source, label)
) STRICT, WITHOUT ROWID;

-- What the rows above were made with.
CREATE TABLE settings (
    name  TEXT PRIMARY KEY,               -- routing: the configuration the routes follow
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
