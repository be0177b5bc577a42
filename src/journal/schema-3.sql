-- Version 3: sizes are what events take on the disk, no longer bytes of bodies. The counters of these
-- names are gone; the next start counts the new ones from the rows.
DELETE FROM totals WHERE name IN ('backlog_bytes', 'retained_bytes');
