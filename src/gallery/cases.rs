//! Cases in the store: rows, and the way from a row to a [`Case`].

use std::time::SystemTime;

use rusqlite::{OptionalExtension, Row, params};

use super::store::{Store, micros, time};
use crate::domain::{
    CandidateList, Case, CaseId, GalleryName, ModelDigest, Purpose, ReferenceId, Score, SubjectId, TransactionId,
};

/// In the place of a claimed subject that was erased.
const ERASED: &str = "";

/// A row of `review_case` with what is left of its candidates.
pub(super) struct CaseRow {
    pub gallery: i64,
    claimed: String,
    pub opened_at: SystemTime,
    opened_by: String,
    opened_for: String,
    model: [u8; 32],
    /// Subject, reference, score.
    candidates: Vec<(String, ReferenceId, f64)>,
}

impl Store {
    /// False if there is a case of this id. Whoever has no reference any more is left out.
    pub(super) fn insert_case(&self, gallery: i64, case: &Case) -> Result<bool, rusqlite::Error> {
        let claimed = match &case.claimed {
            Some(subject) if self.count_of_subject(gallery, subject)? > 0 => subject.as_str(),
            _ => ERASED,
        };
        let mut insert = self.0.prepare_cached(
            "INSERT OR IGNORE INTO review_case (id, gallery, claimed, opened_at, opened_by, opened_for, model)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?;
        let inserted = insert.execute(params![
            case.id.as_bytes(),
            gallery,
            claimed,
            micros(case.opened_at),
            case.opened_by.as_str(),
            case.opened_for.as_str(),
            case.model.as_bytes(),
        ])?;
        if inserted == 0 {
            return Ok(false);
        }
        let key = self.0.last_insert_rowid();
        let mut add = self.0.prepare_cached(
            "INSERT OR IGNORE INTO candidate (review_case, reference, score)
             SELECT ?, seq, ? FROM reference WHERE id = ? AND gallery = ? AND subject = ?",
        )?;
        for c in case.candidates.as_slice() {
            let score = f64::from(c.score.value());
            add.execute(params![key, score, c.reference.as_bytes(), gallery, c.subject.as_str()])?;
        }
        Ok(true)
    }

    /// A failure without an SQLite code is a row that does not convert.
    pub(super) fn case(&self, id: CaseId) -> Result<Option<CaseRow>, rusqlite::Error> {
        let mut select = self.0.prepare_cached(
            "SELECT key, gallery, claimed, opened_at, opened_by, opened_for, model FROM review_case WHERE id = ?",
        )?;
        let read = |row: &Row<'_>| {
            let case = CaseRow {
                gallery: row.get(1)?,
                claimed: row.get(2)?,
                opened_at: time(row.get(3)?),
                opened_by: row.get(4)?,
                opened_for: row.get(5)?,
                model: row.get(6)?,
                candidates: Vec::new(),
            };
            Ok((row.get::<_, i64>(0)?, case))
        };
        let Some((key, mut case)) = select.query_row([id.as_bytes()], read).optional()? else { return Ok(None) };
        let mut select = self.0.prepare_cached(
            "SELECT subject, id, score FROM candidate JOIN reference ON seq = reference WHERE review_case = ?",
        )?;
        let read = |row: &Row<'_>| Ok((row.get(0)?, ReferenceId::from_bytes(row.get(1)?), row.get(2)?));
        case.candidates = select.query_map([key], read)?.collect::<Result<_, _>>()?;
        Ok(Some(case))
    }

    /// Takes a subject without references out of the cases that its verifications opened.
    pub(super) fn forget_claims(&self, gallery: i64, subject: &str) -> Result<(), rusqlite::Error> {
        let mut update = self.0.prepare_cached(
            "UPDATE review_case SET claimed = ?3 WHERE gallery = ?1 AND claimed = ?2
             AND NOT EXISTS (SELECT 1 FROM reference WHERE gallery = ?1 AND subject = ?2)",
        )?;
        update.execute(params![gallery, subject, ERASED])?;
        Ok(())
    }
}

impl CaseRow {
    /// `None` if a value is not what this program wrote.
    pub(super) fn into_case(self, id: CaseId, gallery: GalleryName) -> Option<Case> {
        let claimed = match self.claimed.as_str() {
            ERASED => None,
            text => Some(SubjectId::new(text).ok()?),
        };
        let found = self.candidates.into_iter().map(|(subject, reference, score)| {
            Some((SubjectId::new(&subject).ok()?, reference, Score::new(score as f32)?))
        });
        let found: Vec<_> = found.collect::<Option<_>>()?;
        let most = found.len();
        Some(Case {
            id,
            gallery,
            claimed,
            opened_at: self.opened_at,
            opened_by: TransactionId::new(&self.opened_by).ok()?,
            opened_for: Purpose::parse(&self.opened_for)?,
            model: ModelDigest::new(self.model),
            candidates: CandidateList::new(found, most),
        })
    }
}
