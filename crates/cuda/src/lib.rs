//! A CUDA device, shared by networks and search.
//!
//! The driver is loaded when it is asked for: a machine without one runs the same binary, and gets [`Error::NoDriver`]. What is on a device has an
//! owner here, with a name and within a limit; what held images or templates is wiped when it is freed. One thread owns a device: owners hold it by
//! `Rc`, so the compiler keeps them there.
//!
//! **A device that is lost stays lost.** After an error that a context does not survive, or a batch that does not end in time, every call returns
//! [`Error::Lost`] without asking the driver, in this process for good: a driver gives a context back to a new process alone. Owners that go
//! then leave their objects to the end of the process, since a driver that hangs would hang whoever frees.

#![deny(unsafe_code)] // but in files that say so

mod device;
mod driver;
mod error;
mod launch;
mod memory;
mod stream;

pub use self::{
    device::{Device, DeviceInfo, Limits, device, devices},
    driver::{Attribute, Driver, Handle, Launch, RowMap, TensorMap, WindowMap, library::Library},
    error::{Error, Kind, Loss, Status},
    launch::{Argument, Function, Module, argument},
    memory::{Buffer, Pinned},
    stream::{Event, Graph, Stream},
};
#[cfg(feature = "fake")]
pub use driver::fake;
