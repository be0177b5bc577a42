-- The journal, schema version 4. Readable with any SQLite tool.

-- A webhook as received: written once, never changed, deleted whole by retention. A large webhook
-- is stored in parts, one row each.
CREATE TABLE webhooks (
    first       INTEGER PRIMARY KEY,  -- seq of its first event; the others follow without a gap
    events      INTEGER NOT NULL,     -- how many
    first_index INTEGER NOT NULL,     -- position of its first event in the array, from 0
    webhook_id  BLOB    NOT NULL,     -- UUID, 16 bytes
    source      TEXT    NOT NULL,
    received_at INTEGER NOT NULL,     -- microseconds since 1970
    traceparent TEXT,
    tracestate  TEXT,
    fields      TEXT    NOT NULL,     -- one line an event, a JSON array: see the view `events`
    bodies      BLOB    NOT NULL      -- the bodies of the events, one behind the other
) STRICT;

-- Pending events with a row: rejected ones, those that are to become dead letters, those that wait
-- behind such an event of their session, and those that have waited for long. Every other event
-- that is not in `completed` is pending, too.
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
-- Finds the followers in a session, in order of seq. The session comes first because there are few
-- sources: it is the more selective column.
CREATE INDEX pending_session ON pending (session, source);
-- The candidates for publishing, in order of due and seq: a fetch costs what it returns, not the
-- backlog.
CREATE INDEX pending_head ON pending (route, due) WHERE head = 1;

-- Completed events: one row per commit, in order of time.
CREATE TABLE completed (
    id     INTEGER PRIMARY KEY,
    first  INTEGER NOT NULL,              -- the smallest seq in it
    last   INTEGER NOT NULL,              -- the largest
    at     INTEGER NOT NULL,              -- microseconds since 1970
    runs   TEXT    NOT NULL,              -- JSON: [[first, last], …] of the events that it settled
    closed TEXT    NOT NULL               -- JSON: [[first, last, bytes on the disk], …] of the
                                          -- webhooks whose last event it settled
) STRICT;
CREATE INDEX completed_last ON completed (last);

-- The final state of each completed event that was not published at the first attempt.
CREATE TABLE outcomes (
    seq      INTEGER PRIMARY KEY,
    outcome  TEXT    NOT NULL,            -- published, or the reason of the dead letter
    attempts INTEGER NOT NULL,
    kept     INTEGER NOT NULL             -- 1: exempt from retention (the body lies only here)
) STRICT;

CREATE TABLE routes (
    id          INTEGER PRIMARY KEY,
    exchange    TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    UNIQUE (exchange, routing_key)
) STRICT;

-- Counters; they change in the same commits as what they count.
CREATE TABLE totals (
    name   TEXT    NOT NULL,              -- accepted, published, dead_lettered, backlog_events, …
    source TEXT    NOT NULL,
    label  TEXT    NOT NULL,
    value  INTEGER NOT NULL,
    PRIMARY KEY (name, source, label)
) STRICT, WITHOUT ROWID;

-- Values that describe the rows above.
CREATE TABLE settings (
    name  TEXT PRIMARY KEY,               -- routing: the configuration the routes follow
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Control requests of commands. Commands write nothing else. The writer of the bridge carries out
-- each request with its next tick or at its next start, and deletes the row in the same
-- transaction.
CREATE TABLE wishes (
    id    INTEGER PRIMARY KEY,
    kind  TEXT    NOT NULL,               -- replayed, release
    value INTEGER NOT NULL                -- how many; which event
) STRICT;

-- Every event as one row, for SQLite tools. A line of `fields` is [message_id, offset, length,
-- session, status, type, previous status, company]; of a reject it is [message_id, offset, length,
-- null, reason, detail, null, null].
CREATE VIEW events AS
SELECT w.first + line.key AS seq, w.webhook_id, w.first_index + line.key AS webhook_index,
       w.source, w.received_at, w.traceparent, w.tracestate,
       line.value ->> 0 AS message_id,
       line.value ->> 3 AS session,
       iif(line.value ->> 3 IS NULL, NULL, line.value ->> 4) AS status,
       iif(line.value ->> 3 IS NULL, NULL, line.value ->> 5) AS session_type,
       line.value ->> 6 AS previous_status,
       line.value ->> 7 AS company,
       iif(line.value ->> 3 IS NULL, line.value ->> 4, NULL) AS reject_reason,
       iif(line.value ->> 3 IS NULL, line.value ->> 5, NULL) AS reject_detail,
       substr(w.bodies, 1 + (line.value ->> 1), line.value ->> 2) AS body
FROM webhooks w, json_each('[' || replace(w.fields, char(10), ',') || ']') AS line;

-- Every completed event that is still stored, for SQLite tools.
CREATE VIEW settled AS
SELECT e.seq, c.at, coalesce(o.outcome, 'published') AS outcome, coalesce(o.attempts, 1) AS attempts,
       length(e.body) AS bytes, coalesce(o.kept, 0) AS kept
FROM completed c, json_each(c.runs) AS run
JOIN events e ON e.seq BETWEEN run.value ->> 0 AND run.value ->> 1
LEFT JOIN outcomes o ON o.seq = e.seq;
