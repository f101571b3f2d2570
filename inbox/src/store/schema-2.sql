-- For claims while a source is paused; and what is counted is in it, so that no count reads the rows.
CREATE INDEX inbox_sources ON inbox_events (source, due, turn, state, received_at, bytes) WHERE state < 2;
