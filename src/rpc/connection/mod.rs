//! The life of a connection: accepted, greeted, told apart by who is at its other end, served at a priority, and ended in time. What
//! its requests are answered by it does not know.

mod conduct;
mod identity;
mod incoming;
mod runtimes;
mod transport;

pub use conduct::Conduct;
pub use identity::{TakenAtItsWord, client};
pub use incoming::{Connection, Patience, accept};
pub use runtimes::{Priority, Runtimes};
pub use transport::{Answers, Transport};
