//! A message on its way in: counted as it arrives, and broken off where there is no room for more, or when it takes too long.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::Body as _;
use tokio::time::Sleep;
use tonic::{Status, body::Body, codegen::Bytes};

use super::{ledger::Lost, place::Place};
use crate::rpc::error::Error;

/// The body of a request that has a place.
pub struct Metered {
    body: Body,
    place: Arc<Place>,
    patience: Duration,
    /// Set when there is nothing to read for the first time: most messages are there at once.
    wait: Option<Wait>,
    is_broken: bool,
    /// Bytes that may be on their way, and are taken in of a message that is broken off.
    window: usize,
}

struct Wait {
    until: Pin<Box<Sleep>>,
    lost: Lost,
}

impl Metered {
    pub fn new(body: Body, place: Arc<Place>, patience: Duration, window: usize) -> Self {
        Self { body, place, patience, wait: None, is_broken: false, window }
    }

    /// The next frame. Where the message ends before its end, none comes: its client let it go, or the connection broke, and the call ends with
    /// its stream. To the transport half a message is an error of ours.
    fn poll_whole(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        if self.is_broken {
            return Poll::Pending;
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.is_broken = match &frame {
            // Every layer below must say where the stream ends: what never does would never be answered.
            None => !self.body.is_end_stream(),
            Some(frame) => frame.is_err(),
        };
        if self.is_broken { Poll::Pending } else { Poll::Ready(frame) }
    }

    /// There is no room: what is on its way is taken in all the same.
    fn break_off(&mut self, error: Error) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        take_in(std::mem::take(&mut self.body), self.window);
        self.wait = None;
        Poll::Ready(Some(Err(error.into_status())))
    }
}

impl http_body::Body for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let Poll::Ready(frame) = self.poll_whole(context) else {
            let Self { place, patience, wait, .. } = &mut *self;
            let begin = || Wait { until: Box::pin(tokio::time::sleep(*patience)), lost: place.awaited() };
            let wait = wait.get_or_insert_with(begin);
            if Pin::new(&mut wait.lost).poll(context).is_ready() {
                let error = self.place.lost();
                return self.break_off(error);
            }
            ready!(wait.until.as_mut().poll(context));
            return Poll::Ready(Some(Err(Error::SlowMessage.into_status())));
        };
        match &frame {
            None => {
                if let Err(error) = self.place.arrived() {
                    return Poll::Ready(Some(Err(error.into_status())));
                }
            }
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref()
                    && let Err(error) = self.place.hold(data.len())
                {
                    return self.break_off(error);
                }
            }
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        // Nobody may skip the end: it says that the message is there.
        false
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// How long a refused message may take to arrive.
const TAKE_IN_TIME: Duration = Duration::from_secs(1);

/// Takes in up to `window` bytes of a refused message, and keeps nothing of it. Dropped unread, its stream would be reset while the message is
/// on its way, and a connection on which that happens a few hundred times is ended as a hostile one, with all that is answered on it.
pub fn take_in(mut body: Body, window: usize) {
    let taking = async move {
        let mut taken = 0;
        while taken <= window
            && let Some(Ok(frame)) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
        {
            taken += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    tokio::spawn(tokio::time::timeout(TAKE_IN_TIME, taking));
}
