-- Version 2. Times are microseconds since 1970 in UTC; ids are 16 bytes.

-- One row: tells a wrong root key from a damaged reference.
CREATE TABLE seal (check_value BLOB NOT NULL) STRICT;

CREATE TABLE gallery (
    key        INTEGER PRIMARY KEY,
    uid        BLOB    NOT NULL UNIQUE,  -- random: no template of a namesake opens here
    name       TEXT    NOT NULL UNIQUE,
    model      BLOB    NOT NULL,         -- digest of the one model bundle, 32 bytes
    dimension  INTEGER NOT NULL,         -- values in a template
    epoch      INTEGER NOT NULL,         -- counts the changes
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE reference (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice; the index's id
    id          BLOB    NOT NULL UNIQUE,
    gallery     INTEGER NOT NULL REFERENCES gallery (key),
    subject     TEXT    NOT NULL,
    template    BLOB    NOT NULL,                   -- sealed
    enrolled_at INTEGER NOT NULL
) STRICT;
CREATE INDEX reference_of_subject ON reference (gallery, subject);

-- Verification receipts that were used.
CREATE TABLE spent_receipt (
    nonce      BLOB    NOT NULL PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX spent_receipt_by_expiry ON spent_receipt (expires_at);

CREATE TABLE review_case (
    key        INTEGER PRIMARY KEY,
    id         BLOB    NOT NULL UNIQUE,
    gallery    INTEGER NOT NULL REFERENCES gallery (key),
    claimed    TEXT    NOT NULL,                    -- '' once the subject has no reference
    opened_at  INTEGER NOT NULL,
    opened_by  TEXT    NOT NULL,
    opened_for TEXT    NOT NULL,
    model      BLOB    NOT NULL
) STRICT;
CREATE INDEX review_case_by_age ON review_case (opened_at);
CREATE INDEX review_case_of_claimed ON review_case (gallery, claimed);

-- Who the candidate is stands in its reference alone; the two go together.
CREATE TABLE candidate (
    review_case INTEGER NOT NULL REFERENCES review_case (key) ON DELETE CASCADE,
    reference   INTEGER NOT NULL REFERENCES reference (seq) ON DELETE CASCADE,
    score       REAL    NOT NULL,
    PRIMARY KEY (review_case, reference)
) STRICT, WITHOUT ROWID;
CREATE INDEX candidate_by_reference ON candidate (reference);
