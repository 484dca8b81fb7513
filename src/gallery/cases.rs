//! Cases in the store: rows, and the way from a row to a [`Case`].

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    ServiceTime,
    store::{Store, micros, time, unsigned},
};
use crate::domain::{
    Admitted, CandidateList, Case, CaseId, CaseSummary, ClientId, GalleryName, Judgement, ModelDigest, Purpose,
    ReferenceId, ReviewerId, Score, SubjectId, TransactionId, Verdict,
};

/// In the place of a claimed subject that was erased.
const ERASED: &str = "";

/// A row of `review_case` with what is left of its candidates.
pub(super) struct CaseRow {
    gallery: String,
    claimed: String,
    opened_at: SystemTime,
    opened_by: String,
    opened_for: String,
    model: [u8; 32],
    /// Verdict, client, reviewer, wall time.
    judged: (Option<String>, Option<String>, Option<String>, Option<i64>),
    /// Subject, reference, score.
    candidates: Vec<(String, ReferenceId, f64)>,
}

/// A row of the list of open cases.
pub(super) struct SummaryRow {
    pub key: i64,
    id: CaseId,
    opened_at: SystemTime,
    opened_by: String,
    opened_for: String,
    candidates: usize,
}

/// A case that was opened after `since`, whatever became of it. A failure without an SQLite code is a row that does not convert.
pub(super) fn case(
    connection: &Connection,
    id: CaseId,
    since: ServiceTime,
) -> Result<Option<CaseRow>, rusqlite::Error> {
    let mut select = connection.prepare_cached(
        "SELECT review_case.key, name, claimed, opened_at, opened_by, opened_for, review_case.model,
                verdict, judged_client, judged_by, judged_at
         FROM review_case JOIN gallery ON gallery.key = gallery WHERE id = ? AND opened_service > ?",
    )?;
    let read = |row: &Row<'_>| {
        let case = CaseRow {
            gallery: row.get(1)?,
            claimed: row.get(2)?,
            opened_at: time(row.get(3)?),
            opened_by: row.get(4)?,
            opened_for: row.get(5)?,
            model: row.get(6)?,
            judged: (row.get(7)?, row.get(8)?, row.get(9)?, row.get(10)?),
            candidates: Vec::new(),
        };
        Ok((row.get::<_, i64>(0)?, case))
    };
    let Some((key, mut case)) = select.query_row(params![id.as_bytes(), since.micros()], read).optional()? else {
        return Ok(None);
    };
    let mut select = connection.prepare_cached(
        "SELECT subject, id, score FROM candidate JOIN reference ON seq = reference WHERE review_case = ?",
    )?;
    let read = |row: &Row<'_>| Ok((row.get(0)?, ReferenceId::from_bytes(row.get(1)?), row.get(2)?));
    case.candidates = select.query_map([key], read)?.collect::<Result<_, _>>()?;
    Ok(Some(case))
}

/// Open cases of a gallery that were opened after `since`, oldest first, from behind `after` on.
pub(super) fn open_cases(
    connection: &Connection,
    gallery: i64,
    since: ServiceTime,
    after: i64,
    most: usize,
) -> Result<Vec<SummaryRow>, rusqlite::Error> {
    let mut select = connection.prepare_cached(
        "SELECT key, id, opened_at, opened_by, opened_for,
                (SELECT count(DISTINCT subject) FROM candidate JOIN reference ON seq = reference WHERE review_case = key)
         FROM review_case WHERE gallery = ? AND verdict IS NULL AND key > ? AND opened_service > ? ORDER BY key LIMIT ?",
    )?;
    let read = |row: &Row<'_>| {
        Ok(SummaryRow {
            key: row.get(0)?,
            id: CaseId::from_bytes(row.get(1)?),
            opened_at: time(row.get(2)?),
            opened_by: row.get(3)?,
            opened_for: row.get(4)?,
            candidates: unsigned(row, 5)?,
        })
    };
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    select.query_map(params![gallery, after, since.micros(), most], read)?.collect()
}

impl Store {
    /// False if there is a case of this id. Whoever has no reference any more is left out.
    pub(super) fn insert_case(&self, gallery: i64, case: &Case, now: ServiceTime) -> Result<bool, rusqlite::Error> {
        let claimed = match &case.claimed {
            Some(subject) if self.count_of_subject(gallery, subject)? > 0 => subject.as_str(),
            _ => ERASED,
        };
        let mut insert = self.0.prepare_cached(
            "INSERT OR IGNORE INTO review_case
                (id, gallery, claimed, opened_at, opened_service, opened_by, opened_for, model)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )?;
        let inserted = insert.execute(params![
            case.id.as_bytes(),
            gallery,
            claimed,
            micros(case.opened_at),
            now.micros(),
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
        for (subject, reference, score) in case.candidates.references() {
            add.execute(params![key, f64::from(score.value()), reference.as_bytes(), gallery, subject.as_str()])?;
        }
        Ok(true)
    }

    /// The verdict that stood before, if any; `None` outside when there is no such case.
    pub(super) fn judge(
        &self,
        gallery: i64,
        id: CaseId,
        since: ServiceTime,
        judged: &Judgement,
    ) -> Result<Option<Option<String>>, rusqlite::Error> {
        let mut select = self
            .0
            .prepare_cached("SELECT verdict FROM review_case WHERE id = ? AND gallery = ? AND opened_service > ?")?;
        let before = select.query_row(params![id.as_bytes(), gallery, since.micros()], |row| row.get(0)).optional()?;
        if before.is_some() {
            let mut update = self.0.prepare_cached(
                "UPDATE review_case SET verdict = ?, judged_client = ?, judged_by = ?, judged_at = ? WHERE id = ?",
            )?;
            update.execute(params![
                judged.verdict.as_str(),
                judged.client.as_str(),
                judged.reviewer.as_ref().map(ReviewerId::as_str),
                micros(judged.at),
                id.as_bytes(),
            ])?;
        }
        Ok(before)
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
    pub(super) fn into_case(self, id: CaseId) -> Option<Case> {
        let claimed = match self.claimed.as_str() {
            ERASED => None,
            text => Some(SubjectId::new(text).ok()?),
        };
        let found = self.candidates.into_iter().map(|(subject, reference, score)| {
            Some(Admitted { subject: SubjectId::new(&subject).ok()?, reference, score: Score::new(score as f32)? })
        });
        let found: Vec<_> = found.collect::<Option<_>>()?;
        let most = found.len();
        let judged = match self.judged {
            (None, ..) => None,
            (Some(verdict), client, reviewer, at) => Some(Judgement {
                verdict: Verdict::parse(&verdict)?,
                client: ClientId::new(&client?).ok()?,
                reviewer: reviewer.map(|text| ReviewerId::new(&text)).transpose().ok()?,
                at: time(at?),
            }),
        };
        Some(Case {
            id,
            gallery: GalleryName::new(&self.gallery).ok()?,
            claimed,
            opened_at: self.opened_at,
            opened_by: TransactionId::new(&self.opened_by).ok()?,
            opened_for: Purpose::parse(&self.opened_for)?,
            model: ModelDigest::new(self.model),
            candidates: CandidateList::new(found, most),
            judged,
        })
    }
}

impl SummaryRow {
    /// As [`CaseRow::into_case`].
    pub(super) fn into_summary(self) -> Option<CaseSummary> {
        Some(CaseSummary {
            id: self.id,
            opened_at: self.opened_at,
            opened_by: TransactionId::new(&self.opened_by).ok()?,
            opened_for: Purpose::parse(&self.opened_for)?,
            candidates: self.candidates,
        })
    }
}
