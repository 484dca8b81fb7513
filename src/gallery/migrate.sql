-- From version 2, whose times were of the wall, and in which a reference's id was unique over all galleries. Run with foreign keys off.
-- Receipts of before are sealed in another way and open no more, so those that were spent need not be remembered. Cases
-- begin their retention anew: nobody knows how long the store was served.
BEGIN IMMEDIATE;
CREATE TABLE clock (service INTEGER NOT NULL, wall INTEGER) STRICT;
INSERT INTO clock (service) VALUES (0);

CREATE TABLE new_reference (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          BLOB    NOT NULL,
    gallery     INTEGER NOT NULL REFERENCES gallery (key),
    subject     TEXT    NOT NULL,
    template    BLOB    NOT NULL,
    enrolled_at INTEGER NOT NULL,
    UNIQUE (id, gallery)
) STRICT;
INSERT INTO new_reference SELECT seq, id, gallery, subject, template, enrolled_at FROM reference ORDER BY seq;
-- Rows that are gone have used their numbers, too.
DELETE FROM sqlite_sequence WHERE name = 'new_reference';
INSERT INTO sqlite_sequence (name, seq) SELECT 'new_reference', seq FROM sqlite_sequence WHERE name = 'reference';
DROP TABLE reference;
ALTER TABLE new_reference RENAME TO reference;
CREATE INDEX reference_of_subject ON reference (gallery, subject);

DROP TABLE spent_receipt;
CREATE TABLE spent_receipt (
    nonce           BLOB    NOT NULL PRIMARY KEY,
    expires_service INTEGER NOT NULL,
    review_case     BLOB,
    epoch           INTEGER NOT NULL,
    fnir            REAL
) STRICT, WITHOUT ROWID;
CREATE INDEX spent_receipt_by_expiry ON spent_receipt (expires_service);

CREATE TABLE new_review_case (
    key            INTEGER PRIMARY KEY AUTOINCREMENT,
    id             BLOB    NOT NULL UNIQUE,
    gallery        INTEGER NOT NULL REFERENCES gallery (key),
    claimed        TEXT    NOT NULL,
    opened_at      INTEGER NOT NULL,
    opened_service INTEGER NOT NULL,
    opened_by      TEXT    NOT NULL,
    opened_for     TEXT    NOT NULL,
    model          BLOB    NOT NULL,
    verdict        TEXT,
    judged_client  TEXT,
    judged_by      TEXT,
    judged_at      INTEGER
) STRICT;
INSERT INTO new_review_case (key, id, gallery, claimed, opened_at, opened_service, opened_by, opened_for, model)
    SELECT key, id, gallery, claimed, opened_at, 0, opened_by, opened_for, model FROM review_case ORDER BY key;
DROP TABLE review_case;
ALTER TABLE new_review_case RENAME TO review_case;
CREATE INDEX review_case_by_age ON review_case (opened_service);
CREATE INDEX review_case_of_claimed ON review_case (gallery, claimed);
CREATE INDEX review_case_open ON review_case (gallery, key) WHERE verdict IS NULL;

CREATE TABLE tally (
    what  TEXT    NOT NULL PRIMARY KEY,
    count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 3;
COMMIT;
