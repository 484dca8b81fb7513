//! The rows of the tally.

use rusqlite::{Connection, params};

use super::file::{File, unsigned};
use crate::gallery::Tally;

pub(super) fn read(connection: &Connection) -> Result<Tally, rusqlite::Error> {
    let mut select = connection.prepare_cached("SELECT what, count FROM tally")?;
    let rows = select.query_map([], |row| Ok((row.get::<_, String>(0)?, unsigned(row, 1)?)))?;
    let mut tally = Tally::default();
    for row in rows {
        let (what, count) = row?;
        match what.as_str() {
            "searches" => tally.searches = count,
            "cases" => tally.cases = count,
            "same_person" => tally.same_person = count,
            "other_person" => tally.other_person = count,
            "unclear" => tally.unclear = count,
            _ => {} // of a newer version
        }
    }
    Ok(tally)
}

impl File {
    /// Counts `what` up by one, or down.
    pub(super) fn count(&self, what: &str, by: i64) -> Result<(), rusqlite::Error> {
        let mut add = self.0.prepare_cached(
            "INSERT INTO tally (what, count) VALUES (?1, max(0, ?2)) ON CONFLICT DO UPDATE SET count = max(0, count + ?2)",
        )?;
        add.execute(params![what, by])?;
        Ok(())
    }
}
