//! Cases in the store: rows, and the way from a row to a [`Case`].

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::file::{File, signed, unsigned};
use crate::{
    domain::{
        Admitted, CandidateList, Case, CaseId, CaseSummary, ClientId, GalleryName, Judgement, ModelDigest, Purpose,
        ReferenceId, ReviewerId, Score, SubjectId, TransactionId, Verdict,
    },
    gallery::{
        ServiceTime,
        clock::{micros, time},
    },
};

/// In the place of a claimed subject that was erased.
const ERASED: &str = "";

/// Verdicts that are kept of one case: the last ones.
const MAX_VERDICTS: usize = 32;

/// What became of a verdict.
pub(super) enum Judged {
    /// It stands, over the one before, if any.
    Over(Option<String>),
    /// Nobody is left in the case to judge.
    Empty,
}

/// A row of `review_case` with what is left of its candidates.
pub(super) struct CaseRow {
    gallery: String,
    claimed: String,
    opened_at: SystemTime,
    opened_by: String,
    opened_for: String,
    model: [u8; 32],
    /// Verdict, client, reviewer, wall time.
    judgements: Vec<(String, String, String, i64)>,
    /// Subject, reference, score.
    candidates: Vec<(String, ReferenceId, f64)>,
}

/// The gallery of a case.
pub(super) fn gallery_of(connection: &Connection, id: CaseId) -> Result<Option<String>, rusqlite::Error> {
    let mut select =
        connection.prepare_cached("SELECT name FROM review_case JOIN gallery ON gallery.key = gallery WHERE id = ?")?;
    select.query_row([id.as_bytes()], |row| row.get(0)).optional()
}

/// A case that was opened after `since`, whatever became of it. A failure without an SQLite code is a row that does not convert.
pub(super) fn case(
    connection: &Connection,
    id: CaseId,
    since: ServiceTime,
) -> Result<Option<CaseRow>, rusqlite::Error> {
    let mut select = connection.prepare_cached(
        "SELECT review_case.key, name, claimed, opened_at, opened_by, opened_for, review_case.model
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
            judgements: Vec::new(),
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
    let mut select = connection.prepare_cached(
        "SELECT verdict, client, reviewer, judged_at FROM judgement WHERE review_case = ? ORDER BY key",
    )?;
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    case.judgements = select.query_map([key], read)?.collect::<Result<_, _>>()?;
    Ok(Some(case))
}

/// Open cases of a gallery that were opened after `since` and have somebody left in them, oldest first, from behind the case `after` on;
/// `None` if that is not there. A row that is damaged keeps nobody from the others.
pub(super) fn open_cases(
    connection: &Connection,
    gallery: i64,
    since: ServiceTime,
    after: Option<CaseId>,
    most: usize,
) -> Result<Option<Vec<CaseSummary>>, rusqlite::Error> {
    let mut place = connection.prepare_cached("SELECT key FROM review_case WHERE id = ? AND gallery = ?")?;
    let from: i64 = match after {
        None => 0,
        Some(id) => match place.query_row(params![id.as_bytes(), gallery], |row| row.get(0)).optional()? {
            None => return Ok(None),
            Some(key) => key,
        },
    };
    let mut select = connection.prepare_cached(
        "SELECT key, id, opened_at, opened_by, opened_for,
                (SELECT count(DISTINCT subject) FROM candidate JOIN reference ON seq = reference WHERE review_case = key)
         FROM review_case WHERE gallery = ? AND verdict IS NULL AND key > ? AND opened_service > ?
            AND EXISTS (SELECT 1 FROM candidate WHERE review_case = key)
         ORDER BY key",
    )?;
    let mut rows = select.query(params![gallery, from, since.micros()])?;
    let mut found = Vec::new();
    while found.len() < most
        && let Some(row) = rows.next()?
    {
        match summary(row)? {
            Some(summary) => found.push(summary),
            None => {
                let key: i64 = row.get(0)?;
                tracing::error!(key, "an open case is damaged in the store, and left out of the list");
            }
        }
    }
    Ok(Some(found))
}

/// `None` if a value is not what this program wrote.
fn summary(row: &Row<'_>) -> Result<Option<CaseSummary>, rusqlite::Error> {
    let read = || {
        let (by, purpose): (String, String) = (row.get(3)?, row.get(4)?);
        let (id, at, candidates) = (row.get(1)?, row.get(2)?, unsigned(row, 5)?);
        Ok(TransactionId::new(&by).ok().zip(Purpose::parse(&purpose)).map(|(opened_by, opened_for)| CaseSummary {
            id: CaseId::from_bytes(id),
            opened_at: time(at),
            opened_by,
            opened_for,
            candidates,
        }))
    };
    match read() {
        // Of the wrong type, or out of range.
        Err(e) if rusqlite::Error::sqlite_error_code(&e).is_none() => Ok(None),
        read => read,
    }
}

impl File {
    /// Rows and scores of those references of the candidates that are still there; `None` when somebody has none left. One that was enrolled
    /// after `position` is not what was found, whatever its id.
    pub(super) fn still_there(
        &self,
        gallery: i64,
        candidates: &CandidateList,
        position: u64,
    ) -> Result<Option<Vec<(i64, Score)>>, rusqlite::Error> {
        let mut select = self.0.prepare_cached(
            "SELECT seq FROM reference WHERE id = ? AND gallery = ? AND subject = ? AND position <= ?",
        )?;
        let mut found = Vec::new();
        for person in candidates.as_slice() {
            let before = found.len();
            for (reference, score) in person.references() {
                let row = params![reference.as_bytes(), gallery, person.subject.as_str(), signed(position)?];
                let seq = select.query_row(row, |row| row.get(0)).optional()?;
                found.extend(seq.map(|seq: i64| (seq, score)));
            }
            if found.len() == before {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    /// With the rows and scores of its candidates. False if there is a case of this id.
    pub(super) fn insert_case(
        &self,
        gallery: i64,
        case: &Case,
        found: &[(i64, Score)],
        now: ServiceTime,
    ) -> Result<bool, rusqlite::Error> {
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
        let mut add =
            self.0.prepare_cached("INSERT INTO candidate (review_case, reference, score) VALUES (?, ?, ?)")?;
        for (seq, score) in found {
            add.execute(params![key, seq, f64::from(score.value())])?;
        }
        Ok(true)
    }

    /// Adds a verdict. The one that stood before, if any; `None` outside when there is no such case.
    pub(super) fn judge(
        &self,
        gallery: i64,
        id: CaseId,
        since: ServiceTime,
        judged: &Judgement,
    ) -> Result<Option<Judged>, rusqlite::Error> {
        let mut select = self.0.prepare_cached(
            "SELECT key, verdict, EXISTS (SELECT 1 FROM candidate WHERE review_case = key)
             FROM review_case WHERE id = ? AND gallery = ? AND opened_service > ?",
        )?;
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let row = params![id.as_bytes(), gallery, since.micros()];
        let Some((key, before, has_people)): Option<(i64, Option<String>, bool)> =
            select.query_row(row, read).optional()?
        else {
            return Ok(None);
        };
        if !has_people {
            return Ok(Some(Judged::Empty));
        }
        let mut insert = self.0.prepare_cached(
            "INSERT INTO judgement (review_case, verdict, client, reviewer, judged_at) VALUES (?, ?, ?, ?, ?)",
        )?;
        let verdict = judged.verdict.as_str();
        insert.execute(params![key, verdict, judged.client.as_str(), judged.reviewer.as_str(), micros(judged.at)])?;
        self.0.prepare_cached("UPDATE review_case SET verdict = ? WHERE key = ?")?.execute(params![verdict, key])?;
        let mut forget = self.0.prepare_cached(
            "DELETE FROM judgement WHERE review_case = ?1 AND key NOT IN
                (SELECT key FROM judgement WHERE review_case = ?1 ORDER BY key DESC LIMIT ?2)",
        )?;
        forget.execute(params![key, signed(MAX_VERDICTS)?])?;
        Ok(Some(Judged::Over(before)))
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
        let judgement = |(verdict, client, reviewer, at): (String, String, String, i64)| {
            let (client, reviewer) = (ClientId::new(&client).ok()?, ReviewerId::new(&reviewer).ok()?);
            Some(Judgement { verdict: Verdict::parse(&verdict)?, client, reviewer, at: time(at) })
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
            judgements: self.judgements.into_iter().map(judgement).collect::<Option<_>>()?,
        })
    }
}
