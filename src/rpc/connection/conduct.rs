//! What has been seen of a connection, and what follows: how long it may live, and at which priority it is served.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::runtimes::Priority;
use crate::domain::Lane;

/// So many requests that are not urgent, without a verification between them, make a connection one of bulk: a front end verifies
/// whom it searches for.
const BULK: u32 = 32;

/// So many calls of the open services within a second make it one, too. Who asks for health asks every few seconds.
const OPEN_CALLS: u32 = 32;

/// What has been seen of a connection.
#[derive(Debug, Clone)]
pub struct Conduct(Arc<Seen>);

#[derive(Debug)]
struct Seen {
    /// HTTP/2's greeting.
    greeting: AtomicBool,
    /// A request that earns the connection its life.
    request: AtomicBool,
    /// Streams of the open services: each keeps the connection as long as it lasts.
    open_streams: AtomicU32,
    /// Requests that are not urgent, since the last that was.
    not_urgent: AtomicU32,
    /// Calls of the open services within a second, and when that began.
    open_calls: Mutex<(Instant, u32)>,
    priority: watch::Sender<Priority>,
}

impl Default for Conduct {
    fn default() -> Self {
        Self(Arc::new(Seen {
            greeting: AtomicBool::new(false),
            request: AtomicBool::new(false),
            open_streams: AtomicU32::new(0),
            not_urgent: AtomicU32::new(0),
            open_calls: Mutex::new((Instant::now(), 0)),
            priority: watch::Sender::new(Priority::Usual),
        }))
    }
}

impl Conduct {
    /// All of HTTP/2's greeting.
    pub fn note_greeting(&self) {
        self.0.greeting.store(true, Ordering::Relaxed);
    }

    pub fn has_greeting(&self) -> bool {
        self.0.greeting.load(Ordering::Relaxed)
    }

    /// A request of a client that the policy knows. A stream of them is bulk at once.
    pub fn note_request(&self, lane: Lane, streams: bool) {
        self.0.request.store(true, Ordering::Relaxed);
        match Priority::of(lane) {
            Priority::Usual => {
                self.0.not_urgent.store(0, Ordering::Relaxed);
                self.serve_at(Priority::Usual);
            }
            Priority::WhenIdle => self.note_not_urgent(if streams { BULK } else { 1 }),
        }
    }

    /// A request of nobody that the policy knows: it earns the connection nothing, and is in no hurry, whatever it asks for.
    pub fn note_stranger(&self) {
        self.note_not_urgent(1);
    }

    /// A call of a service that is open to everyone.
    pub fn note_open_call(&self) {
        let now = Instant::now();
        let mut calls = self.0.open_calls.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, number) = *calls;
        let is_over = now.saturating_duration_since(since) > Duration::from_secs(1);
        *calls = if is_over { (now, 1) } else { (since, number.saturating_add(1)) };
        if calls.1 >= OPEN_CALLS {
            self.serve_at(Priority::WhenIdle);
        }
    }

    /// A stream that anyone may open, which was given: it keeps the connection until the guard is dropped.
    pub fn open_stream(&self) -> OpenStream {
        self.0.open_streams.fetch_add(1, Ordering::Relaxed);
        OpenStream(self.clone())
    }

    fn note_not_urgent(&self, more: u32) {
        let seen = self.0.not_urgent.load(Ordering::Relaxed).saturating_add(more);
        self.0.not_urgent.store(seen, Ordering::Relaxed); // a lost count is no loss
        if seen >= BULK {
            self.serve_at(Priority::WhenIdle);
        }
    }

    fn serve_at(&self, wanted: Priority) {
        self.0.priority.send_if_modified(|priority| std::mem::replace(priority, wanted) != wanted);
    }

    /// At which the connection is to be served.
    pub fn priority(&self) -> watch::Receiver<Priority> {
        self.0.priority.subscribe()
    }

    /// Whether it may live longer than a connection without a request.
    pub fn has_request(&self) -> bool {
        self.0.request.load(Ordering::Relaxed) || self.0.open_streams.load(Ordering::Relaxed) > 0
    }
}

/// Held by a stream of an open service.
#[derive(Debug)]
pub struct OpenStream(Conduct);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.0.open_streams.fetch_sub(1, Ordering::Relaxed);
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

    #[test]
    fn strangers_and_floods_of_open_calls_are_bulk() {
        let (strange, checked) = (Conduct::default(), Conduct::default());
        (1..BULK).for_each(|_| strange.note_stranger());
        (1..OPEN_CALLS).for_each(|_| checked.note_open_call());
        let now = |conduct: &Conduct| *conduct.priority().borrow();
        assert_eq!([now(&strange), now(&checked)], [Priority::Usual; 2]);
        strange.note_stranger();
        checked.note_open_call();
        assert_eq!([now(&strange), now(&checked)], [Priority::WhenIdle; 2]);
        assert!(!strange.has_request() && !checked.has_request());
        // Some each second are no flood.
        let slow = Conduct::default();
        for _ in 0..3 {
            slow.0.open_calls.lock().unwrap().0 -= Duration::from_secs(2);
            (0..OPEN_CALLS / 2).for_each(|_| slow.note_open_call());
        }
        assert_eq!(now(&slow), Priority::Usual);
    }

    #[test]
    fn an_open_stream_keeps_the_connection_while_it_lasts() {
        let conduct = Conduct::default();
        let (first, second) = (conduct.open_stream(), conduct.open_stream());
        drop(first);
        assert!(conduct.has_request());
        drop(second);
        assert!(!conduct.has_request());
    }
}
