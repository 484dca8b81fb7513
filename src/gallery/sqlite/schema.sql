-- Version 6. Times are microseconds: of the wall since 1970 in UTC, or of service (columns named so; what that is: clock.rs).
-- Ids are 16 bytes.

-- One row: tells a wrong root key from a damaged reference.
CREATE TABLE seal (check_value BLOB NOT NULL) STRICT;

-- One row: how long the store has been served, and the wall time of then.
CREATE TABLE clock (service INTEGER NOT NULL, wall INTEGER) STRICT;
INSERT INTO clock (service) VALUES (0);

CREATE TABLE gallery (
    key        INTEGER PRIMARY KEY,
    uid        BLOB    NOT NULL UNIQUE,  -- random: no template of a namesake opens here
    name       TEXT    NOT NULL UNIQUE,
    model      BLOB    NOT NULL,         -- digest of the one model whose templates are in it, 32 bytes
    dimension  INTEGER NOT NULL,         -- values in a template
    epoch      INTEGER NOT NULL,         -- position of the last change
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE reference (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice; the index's id
    id          BLOB    NOT NULL,
    gallery     INTEGER NOT NULL REFERENCES gallery (key),
    subject     TEXT    NOT NULL,
    template    BLOB    NOT NULL,                   -- sealed
    enrolled_at INTEGER NOT NULL,
    position    INTEGER NOT NULL DEFAULT 0,         -- of its enrolment in the gallery's changes
    extraction  BLOB    NOT NULL,                   -- how its face was found, 8 bytes; zeros: not known
    UNIQUE (id, gallery)                            -- so that no gallery tells what another holds
) STRICT;
CREATE INDEX reference_of_subject ON reference (gallery, subject);

-- Verification receipts that were used, and what came of them.
CREATE TABLE spent_receipt (
    nonce           BLOB    NOT NULL PRIMARY KEY,
    expires_service INTEGER NOT NULL,
    review_case     BLOB,                           -- id of the case; NULL: no duplicate
    epoch           INTEGER NOT NULL,
    fnir            REAL                            -- expected; NULL: not known
) STRICT, WITHOUT ROWID;
CREATE INDEX spent_receipt_by_expiry ON spent_receipt (expires_service);

CREATE TABLE review_case (
    key            INTEGER PRIMARY KEY AUTOINCREMENT, -- rises in the order of opening
    id             BLOB    NOT NULL UNIQUE,
    gallery        INTEGER NOT NULL REFERENCES gallery (key),
    claimed        TEXT    NOT NULL,                  -- '' once the subject has no reference
    opened_at      INTEGER NOT NULL,
    opened_service INTEGER NOT NULL,
    opened_by      TEXT    NOT NULL,
    opened_for     TEXT    NOT NULL,
    model          BLOB    NOT NULL,
    verdict        TEXT                               -- the one that stands; NULL: open
) STRICT;
CREATE INDEX review_case_by_age ON review_case (opened_service);
CREATE INDEX review_case_of_claimed ON review_case (gallery, claimed);
CREATE INDEX review_case_open ON review_case (gallery, key) WHERE verdict IS NULL;

-- Every verdict on a case, in the order in which they came.
CREATE TABLE judgement (
    key         INTEGER PRIMARY KEY,
    review_case INTEGER NOT NULL REFERENCES review_case (key) ON DELETE CASCADE,
    verdict     TEXT    NOT NULL,
    client      TEXT    NOT NULL,
    reviewer    TEXT    NOT NULL,
    judged_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX judgement_of_case ON judgement (review_case);

-- References of a case that reached the threshold. Whose they are stands in the reference alone; the two go together.
CREATE TABLE candidate (
    review_case INTEGER NOT NULL REFERENCES review_case (key) ON DELETE CASCADE,
    reference   INTEGER NOT NULL REFERENCES reference (seq) ON DELETE CASCADE,
    score       REAL    NOT NULL,
    PRIMARY KEY (review_case, reference)
) STRICT, WITHOUT ROWID;
CREATE INDEX candidate_by_reference ON candidate (reference);

-- What happened since the store was made: it outlives receipts and cases.
CREATE TABLE tally (
    what  TEXT    NOT NULL PRIMARY KEY,             -- searches, cases, same_person, other_person, unclear
    count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
