//! HTTP/2: its settings, the life of a connection, and the priority at which it is served.
//!
//! A connection that brings nothing but bulk (searches, enrolments, the back office) is served by the threads that run when a core is
//! idle: reading, framing, refusing and answering thousands of requests a second is work, too. Its first verification brings it back.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use hyper::{body::Incoming, server::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    sync::{mpsc, watch},
    task::yield_now,
    time::Sleep,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{
    body::Body,
    codegen::{BoxFuture, http},
};

use super::{
    Limits,
    admission::Door,
    conduct::Conduct,
    incoming::Connection,
    runtimes::{Priority, Runtimes},
};

/// Serves connections.
#[derive(Debug)]
pub struct Transport {
    http2: http2::Builder<TokioExecutor>,
    connection_age: Duration,
    runtimes: Runtimes,
    /// True once every connection is to be told to go.
    stopping: watch::Receiver<bool>,
}

impl Transport {
    pub fn new(limits: &Limits, runtimes: Runtimes, stopping: watch::Receiver<bool>) -> Self {
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams_per_connection)
            .max_header_list_size(limits.header_bytes)
            .max_frame_size(limits.frame_bytes)
            .initial_stream_window_size(limits.stream_window_bytes)
            .initial_connection_window_size(limits.connection_window_bytes)
            .max_pending_accept_reset_streams(limits.pending_resets)
            .max_local_error_reset_streams(limits.error_resets)
            .keep_alive_interval(limits.keepalive)
            .keep_alive_timeout(limits.keepalive_timeout);
        Self { http2, connection_age: limits.connection_age, runtimes, stopping }
    }

    /// Serves all that come until the server is told to stop: accepts no more then, tells every client to go, and returns when the
    /// last has gone.
    pub async fn serve(self, mut incomers: ReceiverStream<Connection>, door: Door) {
        let (alive, mut all_gone) = mpsc::channel(1);
        let mut stopping = self.stopping.clone();
        loop {
            tokio::select! {
                // An error means that the sender is gone: stop as well.
                _ = stopping.wait_for(|stop| *stop) => break,
                came = incomers.next() => match came {
                    Some(connection) => self.begin(connection, door.clone(), alive.clone()),
                    None => break,
                },
            }
        }
        drop((incomers, alive));
        all_gone.recv().await;
    }

    fn begin(&self, connection: Connection, door: Door, alive: mpsc::Sender<Infallible>) {
        let conduct = connection.conduct();
        let answering = Answering { door, conduct: conduct.clone() };
        let served = Served {
            http2: Box::pin(self.http2.serve_connection(TokioIo::new(connection), answering)),
            wanted_at: conduct.priority(),
            age: Box::pin(tokio::time::sleep(self.connection_age)),
            stopping: self.stopping.clone(),
            in_turn: InTurn::default(),
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
    http2: Pin<Box<http2::Connection<TokioIo<Connection>, Answering, TokioExecutor>>>,
    in_turn: InTurn,
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
                ended = poll_fn(|context| self.in_turn.poll(self.http2.as_mut(), context)) => {
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

/// Lets all that is ready run between a connection's wake and its work: what is answered by then leaves in one write. Alone, it is
/// woken for each answer at once, and writes each.
#[derive(Debug, Default)]
struct InTurn {
    has_waited: bool,
}

impl InTurn {
    fn poll<F: Future>(&mut self, connection: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.has_waited = !self.has_waited;
        if self.has_waited {
            let _ = pin!(yield_now()).poll(context); // pending, and wakes it in its turn
            return Poll::Pending;
        }
        connection.poll(context)
    }
}

/// What a connection's requests are answered by.
struct Answering {
    door: Door,
    conduct: Conduct,
}

impl hyper::service::Service<http::Request<Incoming>> for Answering {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.conduct.clone());
        self.door.answer(request)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn answers_that_are_there_together_leave_together() {
        const ANSWERS: u32 = 4;
        let (waiting, written) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (wake, mut woken) = mpsc::unbounded_channel::<()>();
        let connection = tokio::spawn({
            let (waiting, written) = (Arc::clone(&waiting), Arc::clone(&written));
            async move {
                let mut in_turn = InTurn::default();
                let mut writing = pin!(poll_fn(|context| {
                    while woken.poll_recv(context).is_ready() {}
                    let together = std::mem::take(&mut *waiting.lock().unwrap());
                    let mut written = written.lock().unwrap();
                    written.extend((together > 0).then_some(together));
                    if written.iter().sum::<u32>() == ANSWERS { Poll::Ready(()) } else { Poll::Pending }
                }));
                poll_fn(|context| in_turn.poll(writing.as_mut(), context)).await;
            }
        });
        tokio::task::yield_now().await;
        for _ in 0..ANSWERS {
            let (waiting, wake) = (Arc::clone(&waiting), wake.clone());
            tokio::spawn(async move {
                *waiting.lock().unwrap() += 1;
                wake.send(()).unwrap();
            });
        }
        connection.await.unwrap();
        assert_eq!(*written.lock().unwrap(), [ANSWERS]);
    }
}
