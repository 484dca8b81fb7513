//! Memory of a device, and of the machine in pages that stay, which a device copies from and to by itself.

#![allow(unsafe_code)]

use std::{fmt, ptr::NonNull, rc::Rc, slice};

use zeroize::Zeroize;

use crate::{
    device::{DEFAULT_STREAM, Device},
    error::{Error, Status},
};

/// Memory of a device.
pub struct Buffer {
    device: Rc<Device>,
    what: &'static str,
    address: u64,
    bytes: usize,
    wiped: bool,
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({}, {} bytes)", self.what, self.bytes)
    }
}

impl Buffer {
    /// `bytes`, at least 1, for what has that name; its content is what was there.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Lost`].
    pub fn new(device: &Rc<Device>, what: &'static str, bytes: usize) -> Result<Self, Error> {
        let bytes = bytes.max(1);
        let address = device.take(what, bytes)?;
        Ok(Self { device: Rc::clone(device), what, address, bytes, wiped: false })
    }

    /// The same, for images, templates and what is computed of them: it is overwritten when it is freed.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn wiped(device: &Rc<Device>, what: &'static str, bytes: usize) -> Result<Self, Error> {
        let mut buffer = Self::new(device, what, bytes)?;
        buffer.wiped = true;
        Ok(buffer)
    }

    /// Where it is on the device.
    pub fn address(&self) -> u64 {
        self.address
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes all of it zeros, now. Nothing under way may use it.
    ///
    /// # Errors
    /// [`Error::Lost`], [`Error::Call`].
    pub fn clear(&mut self) -> Result<(), Error> {
        let (address, bytes) = (self.address, self.bytes);
        // SAFETY: the memory is its own, and who has it alone says that nothing uses it.
        self.device
            .call("cuMemsetD8Async", |driver| unsafe { driver.fill(address, 0, bytes, DEFAULT_STREAM) })
            .and_then(|()| self.device.wait("cuStreamQuery", |driver| unsafe { driver.query_stream(DEFAULT_STREAM) }))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.wiped {
            // An error that matters stays with the device, and the next call gives it.
            let _ = self.clear();
        }
        self.device.give_back(self.what, self.bytes, self.address);
    }
}

/// Memory of the machine in pages that stay; zeros at first, wiped when it is freed.
pub struct Pinned {
    device: Rc<Device>,
    what: &'static str,
    address: NonNull<u8>,
    bytes: usize,
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pinned({}, {} bytes)", self.what, self.bytes)
    }
}

impl Pinned {
    /// `bytes`, at least 1, for what has that name.
    ///
    /// # Errors
    /// [`Error::Pinned`], [`Error::Lost`].
    pub fn new(device: &Rc<Device>, what: &'static str, bytes: usize) -> Result<Self, Error> {
        let bytes = bytes.max(1);
        let refused = || Error::Pinned { what, needs: (bytes as u64).div_ceil(1 << 20) };
        // SAFETY: the context is current: owners cannot leave the thread.
        let address = device.call("cuMemHostAlloc", |driver| unsafe { driver.allocate_pinned(bytes) });
        let address = address.map_err(|error| match error {
            Error::Call { status: Status::OUT_OF_MEMORY, .. } => refused(),
            other => other,
        })?;
        let address = NonNull::new(address).ok_or_else(refused)?;
        // SAFETY: so many bytes were given.
        unsafe { address.write_bytes(0, bytes) };
        Ok(Self { device: Rc::clone(device), what, address, bytes })
    }

    pub fn address(&self) -> *mut u8 {
        self.address.as_ptr()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// # Safety
    /// No copy into it is under way.
    pub unsafe fn read(&self) -> &[u8] {
        // SAFETY: so many bytes were given, and set.
        unsafe { slice::from_raw_parts(self.address.as_ptr(), self.bytes) }
    }

    /// # Safety
    /// No copy from or into it is under way.
    pub unsafe fn write(&mut self) -> &mut [u8] {
        // SAFETY: as above; the borrow is exclusive.
        unsafe { slice::from_raw_parts_mut(self.address.as_ptr(), self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let address = self.address.as_ptr();
        if self.device.lost().is_none() {
            // SAFETY: nothing under way uses it. Of a lost device something may: it keeps the pages.
            unsafe { slice::from_raw_parts_mut(address, self.bytes) }.zeroize();
        }
        // SAFETY: it was given by the driver, and is not used any more.
        self.device.leave("cuMemFreeHost", |driver| unsafe { driver.free_pinned(address) });
    }
}
