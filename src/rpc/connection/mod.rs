//! The life of a connection: accepted, greeted, told apart by who is at its other end, served at a priority, and ended in time. What
//! its requests are answered by it does not know.

mod conduct;
mod greeting;
mod identity;
mod incoming;
mod runtimes;
mod transport;

#[cfg(test)]
mod tests;

pub use conduct::Conduct;
pub use identity::{Identities, TakenAtItsWord, client};
pub use incoming::{Connection, Patience, accept};
pub use runtimes::{Priority, Runtimes};
pub use transport::{Answers, Transport};
