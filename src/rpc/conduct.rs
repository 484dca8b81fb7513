//! What the door has seen of a connection, and what follows: how long it may live, and at which priority it is served.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use tokio::sync::watch;

use super::runtimes::Priority;
use crate::domain::Lane;

/// So many requests that are not urgent, without a verification between them, make a connection one of bulk: a front end verifies
/// whom it searches for.
const BULK: u32 = 32;

/// What the door has seen of a connection.
#[derive(Debug, Clone)]
pub struct Conduct(Arc<Seen>);

#[derive(Debug)]
struct Seen {
    /// A request that earns the connection its life.
    request: AtomicBool,
    /// Requests that are not urgent, since the last that was.
    not_urgent: AtomicU32,
    priority: watch::Sender<Priority>,
}

impl Default for Conduct {
    fn default() -> Self {
        let (request, not_urgent) = (AtomicBool::new(false), AtomicU32::new(0));
        Self(Arc::new(Seen { request, not_urgent, priority: watch::Sender::new(Priority::Usual) }))
    }
}

impl Conduct {
    /// A request of a client that the policy knows. A stream of them is bulk at once.
    pub fn note_request(&self, lane: Lane, streams: bool) {
        let seen = &self.0;
        seen.request.store(true, Ordering::Relaxed);
        let wanted = match Priority::of(lane) {
            Priority::Usual => {
                seen.not_urgent.store(0, Ordering::Relaxed);
                Priority::Usual
            }
            Priority::WhenIdle => {
                let more = if streams { BULK } else { 1 };
                let before = seen.not_urgent.load(Ordering::Relaxed);
                seen.not_urgent.store(before.saturating_add(more), Ordering::Relaxed); // a lost count is no loss
                if before.saturating_add(more) < BULK {
                    return;
                }
                Priority::WhenIdle
            }
        };
        seen.priority.send_if_modified(|priority| std::mem::replace(priority, wanted) != wanted);
    }

    /// A stream that anyone may open, which was given.
    pub fn note_open_stream(&self) {
        self.0.request.store(true, Ordering::Relaxed);
    }

    /// At which the connection is to be served.
    pub fn priority(&self) -> watch::Receiver<Priority> {
        self.0.priority.subscribe()
    }

    pub fn has_request(&self) -> bool {
        self.0.request.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(requests: impl IntoIterator<Item = (Lane, bool)>) -> Priority {
        let conduct = Conduct::default();
        let priority = conduct.priority();
        requests.into_iter().for_each(|(lane, streams)| conduct.note_request(lane, streams));
        *priority.borrow()
    }

    fn searches(number: u32) -> impl Iterator<Item = (Lane, bool)> {
        (0..number).map(|_| (Lane::Identification, false))
    }

    #[test]
    fn bulk_alone_is_served_when_a_core_is_idle() {
        assert_eq!(after(searches(BULK - 1)), Priority::Usual);
        assert_eq!(after(searches(BULK)), Priority::WhenIdle);
        assert_eq!(after([(Lane::Enrolment, true)]), Priority::WhenIdle, "a stream of enrolments is bulk");
    }

    #[test]
    fn a_verification_brings_a_connection_back() {
        let verification = [(Lane::Verification, false)];
        assert_eq!(after(searches(BULK).chain(verification)), Priority::Usual);
        assert_eq!(after(searches(BULK).chain(verification).chain(searches(BULK - 1))), Priority::Usual);
        assert_eq!(after(searches(BULK).chain(verification).chain(searches(BULK))), Priority::WhenIdle);
    }
}
