//! HTTP/2: its settings, the life of a connection, and the priority at which it is served.
//!
//! A connection that brings nothing but bulk (searches, enrolments, the back office) is served by the threads that run when a core is
//! idle: reading, framing, refusing and answering thousands of requests a second is work, too. Its first verification brings it back.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use hyper::{body::Incoming, server::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    sync::{mpsc, watch},
    task::yield_now,
    time::{Sleep, timeout_at},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{
    body::Body,
    codegen::{BoxFuture, http},
};

use super::{
    conduct::Conduct,
    greeting::Greeted,
    identity::{Identities, Identity},
    incoming::Connection,
    runtimes::{Priority, Runtimes},
};
use crate::rpc::Limits;

/// What answers the requests of connections.
pub trait Answers: Send + Sync {
    /// The request carries its connection's [`Conduct`] and [`Identity`].
    fn answer(&self, request: http::Request<Body>) -> BoxFuture<http::Response<Body>, Infallible>;
}

/// Serves connections.
#[derive(Debug)]
pub struct Transport {
    http2: http2::Builder<TokioExecutor>,
    connection_age: Duration,
    runtimes: Runtimes,
    identities: Arc<dyn Identities>,
    /// True once every connection is to be told to go.
    stopping: watch::Receiver<bool>,
}

impl Transport {
    pub fn new(
        limits: &Limits,
        runtimes: Runtimes,
        identities: Arc<dyn Identities>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams_per_connection)
            // HTTP/2 answers a larger list itself, with no gRPC status: so the door refuses before that.
            .max_header_list_size(limits.header_bytes.saturating_mul(2))
            .max_frame_size(limits.frame_bytes)
            .initial_stream_window_size(limits.stream_window_bytes)
            .initial_connection_window_size(limits.connection_window_bytes)
            .max_pending_accept_reset_streams(limits.pending_resets)
            .max_local_error_reset_streams(limits.error_resets)
            .keep_alive_interval(limits.keepalive)
            .keep_alive_timeout(limits.keepalive_timeout);
        Self { http2, connection_age: limits.connection_age, runtimes, identities, stopping }
    }

    /// Serves all that come until the server is told to stop: accepts no more then, tells every client to go, and returns when the
    /// last has gone.
    pub async fn serve(self, mut incomers: ReceiverStream<Connection>, answers: Arc<dyn Answers>) {
        let this = Arc::new(self);
        let (alive, mut all_gone) = mpsc::channel(1);
        let mut stopping = this.stopping.clone();
        loop {
            tokio::select! {
                // An error means that the sender is gone: stop as well.
                _ = stopping.wait_for(|stop| *stop) => break,
                came = incomers.next() => match came {
                    Some(connection) => {
                        let begun = Arc::clone(&this).begin(connection, Arc::clone(&answers), alive.clone());
                        this.runtimes.of(Priority::Usual).spawn(begun);
                    }
                    None => break,
                },
            }
        }
        drop((incomers, alive));
        all_gone.recv().await;
    }

    /// Serves the connection as soon as it is known who is at its other end. Deciding that and the greeting have one time together.
    async fn begin(
        self: Arc<Self>,
        connection: Connection,
        answers: Arc<dyn Answers>,
        alive: mpsc::Sender<Infallible>,
    ) {
        let age = Box::pin(tokio::time::sleep(self.connection_age));
        let mut stopping = self.stopping.clone();
        let (conduct, greeting_by) = (connection.conduct(), connection.greeting_by());
        let decided = tokio::select! {
            biased;
            decided = timeout_at(greeting_by, self.identities.of(connection)) => decided,
            _ = stopping.wait_for(|stop| *stop) => return,
        };
        let (identity, stream) = match decided.unwrap_or_else(|late| Err(late.into())) {
            Ok(decided) => decided,
            Err(error) => return tracing::debug!(%error, "a connection failed"),
        };
        let stream = TokioIo::new(Greeted::new(stream, conduct.clone()));
        let answering = Answering { answers, conduct: conduct.clone(), identity };
        let served = Served {
            http2: Box::pin(self.http2.serve_connection(stream, answering)),
            wanted_at: conduct.priority(),
            age,
            stopping,
            after_others: AfterOthers::default(),
            told_to_go: false,
            _alive: alive,
        };
        serve_at(Priority::Usual, served, self.runtimes.clone());
    }
}

/// Serves the connection at the priority, as long as that is its own.
fn serve_at(priority: Priority, mut served: Served, runtimes: Runtimes) {
    let there = runtimes.of(priority).clone();
    there.spawn(async move {
        if let Some(other) = served.until_another_priority(priority).await {
            serve_at(other, served, runtimes);
        }
    });
}

/// A connection that is served.
struct Served {
    http2: Pin<Box<http2::Connection<TokioIo<Greeted>, Answering, TokioExecutor>>>,
    after_others: AfterOthers,
    wanted_at: watch::Receiver<Priority>,
    /// Done at the age at which it is told to go.
    age: Pin<Box<Sleep>>,
    stopping: watch::Receiver<bool>,
    told_to_go: bool,
    /// Held by all that are not gone.
    _alive: mpsc::Sender<Infallible>,
}

impl Served {
    /// `None` when the connection has ended.
    async fn until_another_priority(&mut self, here: Priority) -> Option<Priority> {
        loop {
            tokio::select! {
                biased;
                ended = poll_fn(|context| self.after_others.poll(self.http2.as_mut(), context)) => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection failed");
                    }
                    return None;
                }
                wanted = self.wanted_at.wait_for(|wanted| *wanted != here) => {
                    return wanted.ok().map(|wanted| *wanted); // the sender lives in the connection
                }
                () = self.age.as_mut(), if !self.told_to_go => {}
                _ = self.stopping.wait_for(|stop| *stop), if !self.told_to_go => {}
            }
            self.http2.as_mut().graceful_shutdown();
            self.told_to_go = true;
        }
    }
}

/// Lets all that is ready run between a connection's wake and its work: what is answered by then leaves in one write. Otherwise it would
/// be woken for the first answer at once, and write each.
#[derive(Debug, Default)]
struct AfterOthers(Option<Arc<Turn>>);

/// Comes after what is ready.
#[derive(Debug)]
struct Turn {
    has_come: AtomicBool,
    of: Waker,
}

impl Turn {
    /// One that will come to the task which `context` wakes. It relies on tokio, which wakes a task that yields after those that are
    /// ready, and wakes it surely.
    fn of(context: &Context<'_>) -> Arc<Self> {
        let turn = Arc::new(Self { has_come: AtomicBool::new(false), of: context.waker().clone() });
        let waker = Waker::from(Arc::clone(&turn));
        let _ = pin!(yield_now()).poll(&mut Context::from_waker(&waker)); // pending: it wakes the turn, here or not
        turn
    }

    /// Whether it is still to come, to this task: a connection that has moved on is another's.
    fn is_ahead(&self, context: &Context<'_>) -> bool {
        !self.has_come.load(Ordering::Acquire) && self.of.will_wake(context.waker())
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.has_come.store(true, Ordering::Release);
        self.of.wake_by_ref();
    }
}

impl AfterOthers {
    fn poll<F: Future>(&mut self, connection: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
        match self.0.take() {
            Some(turn) if turn.has_come.load(Ordering::Acquire) => return connection.poll(context),
            Some(turn) if turn.is_ahead(context) => self.0 = Some(turn), // something else has woken it
            _ => self.0 = Some(Turn::of(context)),
        }
        Poll::Pending
    }
}

/// What a connection's requests are answered by.
struct Answering {
    answers: Arc<dyn Answers>,
    conduct: Conduct,
    identity: Arc<dyn Identity>,
}

impl hyper::service::Service<http::Request<Incoming>> for Answering {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.conduct.clone());
        request.extensions_mut().insert(Arc::clone(&self.identity));
        self.answers.answer(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWERS: usize = 16;

    /// How many answers leave in each write of a connection, of [`ANSWERS`] that are ready at the same time. On a runtime whose single
    /// thread runs next what was woken last, as those of a server do.
    async fn written(mut after_others: Option<AfterOthers>) -> Vec<usize> {
        let (answer, mut answers) = mpsc::channel(ANSWERS);
        let connection = tokio::spawn(async move {
            let mut written = Vec::new();
            let mut writing = pin!(poll_fn(|context| {
                let together = std::iter::from_fn(|| match answers.poll_recv(context) {
                    Poll::Ready(answer) => answer,
                    Poll::Pending => None,
                });
                written.extend(Some(together.count()).filter(|count| *count > 0));
                if written.iter().sum::<usize>() == ANSWERS { Poll::Ready(()) } else { Poll::Pending }
            }));
            poll_fn(|context| match &mut after_others {
                Some(after_others) => after_others.poll(writing.as_mut(), context),
                None => writing.as_mut().poll(context),
            })
            .await;
            written
        });
        for _ in 0..ANSWERS {
            yield_now().await; // until the connection waits for answers
        }
        for _ in 0..ANSWERS {
            let answer = answer.clone();
            tokio::spawn(async move { answer.send(()).await.unwrap() });
        }
        connection.await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn answers_that_are_ready_together_leave_together() {
        let both = tokio::spawn(async { (written(None).await, written(Some(AfterOthers::default())).await) });
        let (at_once, after_others) = both.await.unwrap();
        assert!(at_once.len() > ANSWERS / 2, "{at_once:?}");
        assert_eq!(after_others, [ANSWERS]);
    }

    #[tokio::test]
    async fn a_connection_that_moves_on_waits_anew() {
        let mut after_others = AfterOthers::default();
        let mut nobody = Context::from_waker(Waker::noop());
        assert!(after_others.poll(pin!(std::future::ready(())), &mut nobody).is_pending());
        poll_fn(|context| after_others.poll(pin!(std::future::ready(())), context)).await;
    }
}
