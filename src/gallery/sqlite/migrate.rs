//! Stores of older schemas.

use super::file::{File, SCHEMA, SCHEMA_VERSION};

/// From version 1, which kept the claimed subject of a case when the subject was erased.
const FROM_VERSION_1: &str = "
    BEGIN;
    UPDATE review_case SET claimed = '' WHERE NOT EXISTS
        (SELECT 1 FROM reference WHERE reference.gallery = review_case.gallery AND subject = claimed);
    CREATE INDEX review_case_of_claimed ON review_case (gallery, claimed);
    PRAGMA user_version = 2;
    COMMIT;";
/// From version 2, whose times were of the wall, and in which a reference's id was unique over all galleries: its tables step aside, those
/// of the schema are made, and rows move over. Receipts of before are sealed in another way and open no more, so those that were
/// spent need not be remembered. Cases begin their retention anew: nobody knows how long the store was served. Searches of before were
/// not counted, so neither are their cases: the field's rates are shares of what is counted from here on.
const STEP_ASIDE: &str = "
    ALTER TABLE seal RENAME TO old_seal;
    ALTER TABLE gallery RENAME TO old_gallery;
    ALTER TABLE reference RENAME TO old_reference;
    ALTER TABLE review_case RENAME TO old_review_case;
    ALTER TABLE candidate RENAME TO old_candidate;
    DROP TABLE spent_receipt;
    DROP INDEX reference_of_subject;
    DROP INDEX review_case_by_age;
    DROP INDEX review_case_of_claimed;
    DROP INDEX candidate_by_reference;";
const MOVE_OVER: &str = "
    INSERT INTO seal SELECT * FROM old_seal;
    INSERT INTO gallery SELECT * FROM old_gallery;
    INSERT INTO reference (seq, id, gallery, subject, template, enrolled_at, extraction)
        SELECT seq, id, gallery, subject, template, enrolled_at, zeroblob(8) FROM old_reference ORDER BY seq;
    DELETE FROM sqlite_sequence WHERE name = 'reference';
    INSERT INTO sqlite_sequence (name, seq) SELECT 'reference', seq FROM sqlite_sequence WHERE name = 'old_reference';
    INSERT INTO review_case (key, id, gallery, claimed, opened_at, opened_service, opened_by, opened_for, model)
        SELECT key, id, gallery, claimed, opened_at, 0, opened_by, opened_for, model FROM old_review_case ORDER BY key;
    INSERT INTO candidate SELECT * FROM old_candidate;
    DROP TABLE old_candidate;
    DROP TABLE old_review_case;
    DROP TABLE old_reference;
    DROP TABLE old_gallery;
    DROP TABLE old_seal;";

/// From version 3, which kept the last verdict of a case alone, and did not ask who judged.
const FROM_VERSION_3: &str = "
    CREATE TABLE judgement (
        key         INTEGER PRIMARY KEY,
        review_case INTEGER NOT NULL REFERENCES review_case (key) ON DELETE CASCADE,
        verdict     TEXT    NOT NULL,
        client      TEXT    NOT NULL,
        reviewer    TEXT    NOT NULL,
        judged_at   INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX judgement_of_case ON judgement (review_case);
    INSERT INTO judgement (review_case, verdict, client, reviewer, judged_at)
        SELECT key, verdict, judged_client, ifnull(judged_by, 'unknown'), judged_at
        FROM review_case WHERE verdict IS NOT NULL ORDER BY judged_at;
    ALTER TABLE review_case DROP COLUMN judged_client;
    ALTER TABLE review_case DROP COLUMN judged_by;
    ALTER TABLE review_case DROP COLUMN judged_at;";

/// From version 4, which did not say at which position a reference was enrolled: before all that is asked for, for no search of before
/// goes on.
const FROM_VERSION_4: &str = "ALTER TABLE reference ADD COLUMN position INTEGER NOT NULL DEFAULT 0;";

/// From version 5, which did not say how the face of a reference was found.
const FROM_VERSION_5: &str = "
    ALTER TABLE reference ADD COLUMN extraction BLOB NOT NULL DEFAULT x'0000000000000000';";

impl File {
    /// From an older schema, whole or not at all.
    pub(super) fn migrate(&self, version: i64) -> Result<(), rusqlite::Error> {
        if version == 1 {
            self.0.execute_batch(FROM_VERSION_1)?;
        }
        // No transaction can switch foreign keys; without them old rows go in any order.
        self.0.execute_batch("PRAGMA foreign_keys = OFF")?;
        let steps = match version {
            ..3 => [STEP_ASIDE, SCHEMA, MOVE_OVER].concat(),
            3 => [FROM_VERSION_3, FROM_VERSION_4, FROM_VERSION_5].concat(),
            4 => [FROM_VERSION_4, FROM_VERSION_5].concat(),
            _ => FROM_VERSION_5.into(),
        };
        let migrated =
            self.0.execute_batch(&format!("BEGIN IMMEDIATE; {steps} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"));
        if migrated.is_err() {
            self.rollback()?;
        }
        self.0.execute_batch("PRAGMA foreign_keys = ON")?;
        migrated
    }
}
