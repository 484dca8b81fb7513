//! What runs on a device one after the other: streams, events in them, and graphs of what was captured.

#![allow(unsafe_code)]

use std::{fmt, rc::Rc, time::Duration};

use crate::{
    device::Device,
    driver::Handle,
    error::Error,
    memory::{Buffer, Pinned},
};

/// Work in order; streams do not wait for each other.
pub struct Stream {
    device: Rc<Device>,
    handle: Handle,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

impl Stream {
    /// # Errors
    /// [`Error::Lost`], [`Error::Call`]; so for all of these.
    pub fn new(device: &Rc<Device>) -> Result<Self, Error> {
        // SAFETY: the context is current: owners cannot leave the thread. So for all calls here; handles are of living objects, which owners are.
        let handle = device.call("cuStreamCreate", |driver| unsafe { driver.new_stream() })?;
        Ok(Self { device: Rc::clone(device), handle })
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle
    }

    pub(crate) fn device(&self) -> &Rc<Device> {
        &self.device
    }

    /// Waits until all of it is done.
    #[allow(clippy::missing_errors_doc)]
    pub fn wait(&self) -> Result<(), Error> {
        // SAFETY: as above.
        self.device.wait("cuStreamQuery", |driver| unsafe { driver.query_stream(self.handle) })
    }

    /// What comes after does not begin before the event.
    #[allow(clippy::missing_errors_doc)]
    pub fn wait_for(&self, event: &Event) -> Result<(), Error> {
        // SAFETY: as above.
        self.device.call("cuStreamWaitEvent", |driver| unsafe { driver.wait_for_event(self.handle, event.handle) })
    }

    /// Copies the first `bytes` to the device, once the work before is done.
    ///
    /// # Safety
    /// Both live, and nobody writes to what is copied, until it is done; of a captured copy, as long as the graph lives.
    #[allow(clippy::missing_errors_doc)]
    pub unsafe fn upload(&self, to: &Buffer, from: &Pinned, bytes: usize) -> Result<(), Error> {
        fits(bytes, to.bytes(), from.bytes())?;
        // SAFETY: as above, and the caller's promise.
        self.device.call("cuMemcpyHtoDAsync", |driver| unsafe {
            driver.upload(to.address(), from.address(), bytes, self.handle)
        })
    }

    /// Copies `bytes` from the device, those from the offset `at` on.
    ///
    /// # Safety
    /// As [`Self::upload`]; nobody reads what is written before it is done.
    #[allow(clippy::missing_errors_doc)]
    pub unsafe fn download(&self, to: &Pinned, from: &Buffer, at: usize, bytes: usize) -> Result<(), Error> {
        fits(bytes, from.bytes().saturating_sub(at), to.bytes())?;
        // SAFETY: as above, and the caller's promise.
        self.device.call("cuMemcpyDtoHAsync", |driver| unsafe {
            driver.download(to.address(), from.address() + at as u64, bytes, self.handle)
        })
    }

    /// Sets `bytes` of the device, those from the offset `at` on.
    ///
    /// # Safety
    /// As [`Self::upload`].
    #[allow(clippy::missing_errors_doc)]
    pub unsafe fn fill(&self, to: &Buffer, at: usize, byte: u8, bytes: usize) -> Result<(), Error> {
        let room = to.bytes().saturating_sub(at);
        fits(bytes, room, room)?;
        // SAFETY: as above, and the caller's promise.
        self.device.call("cuMemsetD8Async", |driver| unsafe {
            driver.fill(to.address() + at as u64, byte, bytes, self.handle)
        })
    }

    /// A graph of what `work` gives to this stream, and to those that wait for its events. The capture ends in every case.
    #[allow(clippy::missing_errors_doc)]
    pub fn capture(&self, work: impl FnOnce() -> Result<(), Error>) -> Result<Graph, Error> {
        // SAFETY: as above.
        self.device.call("cuStreamBeginCapture", |driver| unsafe { driver.begin_capture(self.handle) })?;
        let done = work();
        // SAFETY: as above.
        let graph = self.device.call("cuStreamEndCapture", |driver| unsafe { driver.end_capture(self.handle) });
        // Owned before the work's error is given, so that it goes.
        let graph = graph.map(|handle| Graph { device: Rc::clone(&self.device), handle });
        done.and(graph)
    }
}

fn fits(bytes: usize, one: usize, other: usize) -> Result<(), Error> {
    let room = one.min(other);
    if bytes <= room { Ok(()) } else { Err(Error::Copy { bytes, room }) }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: as above.
        self.device.leave("cuStreamDestroy", |driver| unsafe { driver.end_stream(self.handle) });
    }
}

/// A place in a stream.
pub struct Event {
    device: Rc<Device>,
    handle: Handle,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Event")
    }
}

impl Event {
    /// # Errors
    /// As [`Stream::new`]; so for all of these.
    pub fn new(device: &Rc<Device>) -> Result<Self, Error> {
        // SAFETY: the context is current; so for all.
        let handle = device.call("cuEventCreate", |driver| unsafe { driver.new_event() })?;
        Ok(Self { device: Rc::clone(device), handle })
    }

    /// It is where the stream's work ends now.
    #[allow(clippy::missing_errors_doc)]
    pub fn record(&self, stream: &Stream) -> Result<(), Error> {
        // SAFETY: as above.
        self.device.call("cuEventRecord", |driver| unsafe { driver.record(self.handle, stream.handle) })
    }

    /// Waits until the work before it is done.
    #[allow(clippy::missing_errors_doc)]
    pub fn wait(&self) -> Result<(), Error> {
        // SAFETY: as above.
        self.device.wait("cuEventQuery", |driver| unsafe { driver.query_event(self.handle) })
    }

    /// Between two that are done.
    #[allow(clippy::missing_errors_doc)]
    pub fn since(&self, earlier: &Self) -> Result<Duration, Error> {
        // SAFETY: as above.
        let ms =
            self.device.call("cuEventElapsedTime", |driver| unsafe { driver.elapsed(earlier.handle, self.handle) })?;
        Ok(Duration::try_from_secs_f32(ms / 1e3).unwrap_or_default())
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: as above.
        self.device.leave("cuEventDestroy", |driver| unsafe { driver.end_event(self.handle) });
    }
}

/// Work that was captured. It is to be dropped before the memory that it names.
pub struct Graph {
    device: Rc<Device>,
    handle: Handle,
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Graph")
    }
}

impl Graph {
    /// Gives all of it to the stream.
    ///
    /// # Safety
    /// All memory that it names lives until it is done, and nobody else uses it until then.
    #[allow(clippy::missing_errors_doc)]
    pub unsafe fn launch(&self, stream: &Stream) -> Result<(), Error> {
        // SAFETY: the context is current; and the caller's promise.
        self.device.call("cuGraphLaunch", |driver| unsafe { driver.launch_graph(self.handle, stream.handle) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: as above.
        self.device.leave("cuGraphExecDestroy", |driver| unsafe { driver.end_graph(self.handle) });
    }
}
