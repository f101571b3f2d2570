CREATE TABLE inbox_meta (
    name TEXT PRIMARY KEY,
    value {integer} NOT NULL
);
INSERT INTO inbox_meta (name, value) VALUES ('version', 0), ('turn', 0);
{sequence}-- One row an event: small, as each attempt writes it anew.
CREATE TABLE inbox_events (
    event {integer} PRIMARY KEY,
    turn {integer} NOT NULL,
    key TEXT NOT NULL UNIQUE,
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    state {integer} NOT NULL,
    attempts {integer} NOT NULL,
    tries {integer} NOT NULL,
    due {integer} NOT NULL,
    claim {integer} NOT NULL,
    claimed_at {integer} NOT NULL,
    lost_at {integer} NOT NULL,
    received_at {integer} NOT NULL,
    changed_at {integer} NOT NULL,
    last_status {integer},
    last_error TEXT,
    bytes {integer} NOT NULL
);
CREATE INDEX inbox_due ON inbox_events (due, turn) WHERE state < 2;
CREATE INDEX inbox_order ON inbox_events (source, id, turn) WHERE state < 2;
CREATE INDEX inbox_ended ON inbox_events (state, changed_at) WHERE state >= 2;
-- What is written once and read for each attempt.
CREATE TABLE inbox_payloads (
    event {integer} PRIMARY KEY REFERENCES inbox_events (event) ON DELETE CASCADE,
    target TEXT NOT NULL,
    headers {bytes} NOT NULL,
    body {bytes} NOT NULL
);
CREATE TABLE inbox_tries (
    event {integer} NOT NULL REFERENCES inbox_events (event) ON DELETE CASCADE,
    number {integer} NOT NULL,
    at {integer} NOT NULL,
    status {integer},
    error TEXT,
    milliseconds {integer},
    PRIMARY KEY (event, number)
);
-- A row with an empty source pauses all.
CREATE TABLE inbox_pauses (
    source TEXT PRIMARY KEY,
    since {integer} NOT NULL
);
