//! Who may enter, how much is held for whom, and when to come again: all of it before a message is read.

mod deadline;
mod door;
mod ledger;
mod metered;
mod pace;
mod place;

pub use door::Door;
pub use place::{Places, StreamPlace};
