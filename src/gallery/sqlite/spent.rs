//! Spent receipts and what came of them: one operation spends a receipt and records the outcome, so that neither is there without
//! the other.

use rusqlite::{Connection, OptionalExtension, params};

use super::file::{File, signed, unsigned};
use crate::{
    domain::CaseId,
    gallery::{Outcome, ServiceTime},
};

/// What was recorded for a receipt, if it is spent.
pub(super) fn outcome(connection: &Connection, nonce: [u8; 16]) -> Result<Option<Outcome>, rusqlite::Error> {
    let mut select = connection.prepare_cached("SELECT review_case, epoch, fnir FROM spent_receipt WHERE nonce = ?")?;
    let read = |row: &rusqlite::Row<'_>| {
        let case: Option<[u8; 16]> = row.get(0)?;
        Ok(Outcome { case: case.map(CaseId::from_bytes), epoch: unsigned(row, 1)?, fnir: row.get(2)? })
    };
    select.query_row([nonce], read).optional()
}

impl File {
    /// Spends a receipt that is not spent.
    pub(super) fn spend(
        &self,
        nonce: [u8; 16],
        expires: ServiceTime,
        outcome: &Outcome,
    ) -> Result<(), rusqlite::Error> {
        let mut insert = self.0.prepare_cached(
            "INSERT INTO spent_receipt (nonce, expires_service, review_case, epoch, fnir) VALUES (?, ?, ?, ?, ?)",
        )?;
        let case = outcome.case.as_ref().map(CaseId::as_bytes);
        insert.execute(params![nonce, expires.micros(), case, signed(outcome.epoch)?, outcome.fnir])?;
        Ok(())
    }
}
