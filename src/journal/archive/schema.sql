-- The archive, version 1: an index over journal.db, derived from it. May be deleted at any time.
-- The words are in FTS5 tables `words_N`, each for 65,536 event numbers.

-- How far the journal is indexed.
CREATE TABLE progress (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    journal      TEXT    NOT NULL,        -- `journal_id` in the journal's settings
    indexed      INTEGER NOT NULL,        -- every event up to this number
    last_first   INTEGER NOT NULL,        -- the row of `webhooks` that was indexed last
    last_webhook BLOB    NOT NULL         -- and its webhook_id
) STRICT;

-- Times of receipt: one row per about 1,000 events.
CREATE TABLE spans (
    first        INTEGER PRIMARY KEY,     -- number of the first event
    last         INTEGER NOT NULL,
    received_min INTEGER NOT NULL,        -- microseconds since 1970
    received_max INTEGER NOT NULL
) STRICT;

-- The numbers N of the existing tables `words_N`.
CREATE TABLE partitions (number INTEGER PRIMARY KEY) STRICT;

-- Rows of `webhooks` that are in no table `words_N`: large ones, and those left of a partition that
-- was dropped. Every search reads all of them.
CREATE TABLE unindexed (first INTEGER PRIMARY KEY) STRICT;
