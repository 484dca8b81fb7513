//! A device, its context and its loss.

#![allow(unsafe_code)]

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    driver::{Attribute, Driver, Handle, RowMap, TensorMap, WindowMap},
    error::{Error, Kind, Loss, Status},
};

/// The least that the driver must know: CUDA 13.0.
const LEAST_VERSION: u32 = 13_000;
/// The least compute capability.
const LEAST_CAPABILITY: (i32, i32) = (8, 0);
const MIB: u64 = 1 << 20;

/// The stream that is there without being made.
pub(crate) const DEFAULT_STREAM: Handle = 0;

/// Questions that are asked at once, before a thread sleeps between them.
const AT_ONCE: u32 = 2_000;
/// How long it sleeps.
const PAUSE: Duration = Duration::from_micros(20);

/// A device that the driver shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    pub ordinal: u32,
    pub name: String,
    pub uuid: [u8; 16],
    /// Compute capability.
    pub capability: (i32, i32),
    pub multiprocessors: i32,
    /// Of a block, bytes.
    pub shared_memory: i32,
}

/// The devices of a driver, which is started.
///
/// # Errors
/// [`Error::TooOld`], [`Error::Start`]. A machine with a driver and without a device has none, which is no error.
pub fn devices(driver: &dyn Driver) -> Result<Vec<DeviceInfo>, Error> {
    match driver.start() {
        // A driver without a device does not start.
        Err(Status(100)) => return Ok(vec![]),
        other => other.map_err(Error::Start)?,
    }
    let version = driver.version().map_err(Error::Start)?;
    if version < LEAST_VERSION {
        let knows = format!("it knows CUDA {}.{}", version / 1000, version % 1000 / 10);
        return Err(Error::TooOld(knows));
    }
    let info = |ordinal| -> Result<DeviceInfo, Status> {
        let attribute = |of| driver.attribute(ordinal, of);
        Ok(DeviceInfo {
            ordinal,
            name: driver.name(ordinal)?,
            uuid: driver.uuid(ordinal)?,
            capability: (attribute(Attribute::CapabilityMajor)?, attribute(Attribute::CapabilityMinor)?),
            multiprocessors: attribute(Attribute::Multiprocessors)?,
            shared_memory: attribute(Attribute::SharedMemory)?,
        })
    };
    let count = driver.count().map_err(Error::Start)?;
    (0..count).map(info).collect::<Result<_, _>>().map_err(Error::Start)
}

/// The device of that number, if kernels can run on it.
///
/// # Errors
/// [`Error::NoDevice`], [`Error::OldCard`], and those of [`devices`].
pub fn device(driver: &dyn Driver, ordinal: u32) -> Result<DeviceInfo, Error> {
    let found = devices(driver)?;
    let count = found.len() as u32;
    let info = found.into_iter().nth(ordinal as usize).ok_or(Error::NoDevice { asked: ordinal, count })?;
    if info.capability < LEAST_CAPABILITY {
        return Err(Error::OldCard { ordinal, name: info.name, capability: info.capability });
    }
    Ok(info)
}

/// What an owner may take, and how long it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of the device's memory, bytes: what is taken together.
    pub memory: u64,
    /// For work that was given to it, from when it is waited for: then it hangs.
    pub patience: Duration,
}

/// A device whose context is current on the thread that opened it.
pub struct Device {
    driver: Box<dyn Driver>,
    info: DeviceInfo,
    limits: Limits,
    /// Bytes that are taken, by the name of what takes them.
    taken: RefCell<BTreeMap<&'static str, u64>>,
    lost: Cell<Option<Loss>>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("info", &self.info).field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl Device {
    /// Opens the device of that number on this thread.
    ///
    /// # Errors
    /// Those of [`device`].
    pub fn open(driver: Box<dyn Driver>, ordinal: u32, limits: Limits) -> Result<Rc<Self>, Error> {
        let info = device(driver.as_ref(), ordinal)?;
        // SAFETY: it was started, and has such a device.
        unsafe { driver.retain(ordinal) }.map_err(Error::Start)?;
        Ok(Rc::new(Self { driver, info, limits, taken: RefCell::default(), lost: Cell::new(None) }))
    }

    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    pub fn patience(&self) -> Duration {
        self.limits.patience
    }

    /// How it was lost.
    pub fn lost(&self) -> Option<Loss> {
        self.lost.get()
    }

    /// Bytes that are taken, by the name of what takes them.
    pub fn taken(&self) -> BTreeMap<&'static str, u64> {
        self.taken.borrow().clone()
    }

    /// Bytes that its owner may still take.
    pub fn memory_left(&self) -> u64 {
        self.limits.memory.saturating_sub(self.taken.borrow().values().sum())
    }

    /// Bytes that the device has free, whoever took the others.
    ///
    /// # Errors
    /// [`Error::Lost`], [`Error::Call`].
    pub fn free_memory(&self) -> Result<u64, Error> {
        // SAFETY: the context is current: owners cannot leave the thread.
        self.call("cuMemGetInfo", |driver| unsafe { driver.memory() }).map(|(free, _)| free)
    }

    /// # Errors
    /// [`Error::Call`] where the numbers do not fit, [`Error::Lost`].
    pub fn window_map(&self, map: &WindowMap) -> Result<TensorMap, Error> {
        self.call("cuTensorMapEncodeIm2col", |driver| driver.window_map(map))
    }

    /// # Errors
    /// As [`Self::window_map`].
    pub fn row_map(&self, map: &RowMap) -> Result<TensorMap, Error> {
        self.call("cuTensorMapEncodeTiled", |driver| driver.row_map(map))
    }

    /// A call, unless the device is lost; what a context does not survive loses it.
    pub(crate) fn call<T>(
        &self,
        call: &'static str,
        of: impl FnOnce(&dyn Driver) -> Result<T, Status>,
    ) -> Result<T, Error> {
        if let Some(loss) = self.lost.get() {
            return Err(Error::Lost(loss));
        }
        of(self.driver.as_ref()).map_err(|status| match status.kind() {
            Kind::Lost | Kind::Unknown => self.lose(Loss::Failed { call, status }),
            Kind::WrongBinary => Error::Binary(status),
            _ => Error::Call { call, status },
        })
    }

    /// Asks until it is done. What is not done in time hangs, and the device is lost: a driver would wait for it for ever.
    pub(crate) fn wait(
        &self,
        call: &'static str,
        question: impl Fn(&dyn Driver) -> Result<(), Status>,
    ) -> Result<(), Error> {
        let mut asked = 0;
        let started = Instant::now();
        loop {
            match self.call(call, &question) {
                Err(Error::Call { status: Status::NOT_READY, .. }) => {}
                other => return other,
            }
            if started.elapsed() >= self.patience() {
                return Err(self.lose(Loss::Hung { seconds: self.patience().as_secs() as u32 }));
            }
            asked += 1;
            if asked < AT_ONCE { std::hint::spin_loop() } else { thread::sleep(PAUSE) }
        }
    }

    /// A call of an owner that goes: nobody waits for its result, and a device that is lost is not asked.
    pub(crate) fn leave(&self, call: &'static str, of: impl FnOnce(&dyn Driver) -> Result<(), Status>) {
        // An error that matters stays with the device, and the next call gives it.
        let _ = self.call(call, of);
    }

    pub(crate) fn lose(&self, loss: Loss) -> Error {
        let first = self.lost.get().unwrap_or(loss);
        self.lost.set(Some(first));
        Error::Lost(first)
    }

    /// Memory within the limit.
    pub(crate) fn take(&self, what: &'static str, bytes: usize) -> Result<u64, Error> {
        let left = self.memory_left();
        let full = |free: u64| Error::Full { what, needs: (bytes as u64).div_ceil(MIB), free: free / MIB };
        if bytes as u64 > left {
            return Err(full(left));
        }
        // SAFETY: the context is current: owners cannot leave the thread.
        let address =
            self.call("cuMemAlloc", |driver| unsafe { driver.allocate(bytes) }).map_err(|error| match error {
                Error::Call { status: Status::OUT_OF_MEMORY, .. } => full(self.free_memory().unwrap_or(0).min(left)),
                other => other,
            })?;
        *self.taken.borrow_mut().entry(what).or_default() += bytes as u64;
        Ok(address)
    }

    pub(crate) fn give_back(&self, what: &'static str, bytes: usize, address: u64) {
        if let Some(taken) = self.taken.borrow_mut().get_mut(what) {
            *taken = taken.saturating_sub(bytes as u64);
        }
        // SAFETY: as above; the owner had it, and nothing uses it any more.
        self.leave("cuMemFree", |driver| unsafe { driver.free(address) });
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: it was retained on this thread, and all owners are gone.
        self.leave("cuDevicePrimaryCtxRelease", |driver| unsafe { driver.release(self.info.ordinal) });
    }
}
