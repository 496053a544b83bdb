-- Everything that was found out by experiments. A name may be used again; the newest run counts.
CREATE TABLE experiments (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT NOT NULL,
    document    TEXT NOT NULL,              -- the ShadowExperiment, JSON
    environment TEXT NOT NULL,              -- JSON
    status      TEXT NOT NULL DEFAULT '{}', -- JSON, the last one
    started_at  TEXT NOT NULL,              -- RFC 3339
    ended_at    TEXT                        -- RFC 3339; NULL while it runs
);
CREATE INDEX experiments_by_name ON experiments (name, id);

CREATE TABLE arms (
    experiment INTEGER NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
    name       TEXT NOT NULL,
    status     TEXT NOT NULL,               -- JSON
    PRIMARY KEY (experiment, name)
) WITHOUT ROWID;

-- stage: 0 while the experiment observed, 1 after the promotion.
CREATE TABLE intervals (
    experiment INTEGER NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
    stage      INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    start_us   INTEGER NOT NULL,
    length_us  INTEGER NOT NULL,
    PRIMARY KEY (experiment, stage, number)
) WITHOUT ROWID;

CREATE TABLE interval_arms (
    experiment INTEGER NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
    stage      INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    arm        TEXT NOT NULL,
    errors     INTEGER NOT NULL,
    cancelled  INTEGER NOT NULL,
    PRIMARY KEY (experiment, stage, number, arm)
) WITHOUT ROWID;

-- HdrHistogram V2, deflated; µs for service and response, thousandths for ratio.
CREATE TABLE histograms (
    experiment INTEGER NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
    stage      INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    arm        TEXT NOT NULL,
    class      TEXT NOT NULL,
    kind       TEXT NOT NULL,               -- service, response, ratio
    v2         BLOB NOT NULL,
    PRIMARY KEY (experiment, stage, number, arm, class, kind)
) WITHOUT ROWID;

CREATE TABLE fingerprints (
    experiment  INTEGER NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
    position    INTEGER NOT NULL,           -- by production's time, most first
    fingerprint TEXT NOT NULL,
    report      TEXT NOT NULL,              -- JSON
    PRIMARY KEY (experiment, position)
) WITHOUT ROWID;

CREATE TABLE verdicts (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    experiment INTEGER NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
    at         TEXT NOT NULL,               -- RFC 3339
    verdict    TEXT NOT NULL                -- JSON
);
CREATE INDEX verdicts_of ON verdicts (experiment, id);

CREATE TABLE events (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    experiment INTEGER NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
    at         TEXT NOT NULL,               -- RFC 3339
    step       TEXT NOT NULL,
    message    TEXT NOT NULL
);
CREATE INDEX events_of ON events (experiment, id);

CREATE TABLE outcomes (
    experiment INTEGER NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
    position   INTEGER NOT NULL,
    outcome    TEXT NOT NULL,               -- JSON
    PRIMARY KEY (experiment, position)
) WITHOUT ROWID;
