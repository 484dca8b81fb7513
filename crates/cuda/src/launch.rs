//! Kernels: modules from the binary, functions in them, and their launch.

#![allow(unsafe_code)]

use std::{ffi::c_void, fmt, marker::PhantomData, rc::Rc};

use crate::{
    device::Device,
    driver::{Handle, Launch},
    error::{Error, Status},
    stream::Stream,
};

/// Kernels that are loaded.
pub struct Module {
    device: Rc<Device>,
    handle: Handle,
    /// Which of the images it is.
    image: usize,
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Module(image {})", self.image)
    }
}

impl Module {
    /// The first of the images that the card takes: cubins, then PTX, which the driver compiles.
    ///
    /// # Errors
    /// [`Error::Binary`] where it takes none, [`Error::Lost`], [`Error::Call`].
    pub fn new(device: &Rc<Device>, images: &[&[u8]]) -> Result<Rc<Self>, Error> {
        let mut refused = Error::Binary(Status::NOT_FOUND);
        for (image, bytes) in images.iter().enumerate() {
            let aligned = aligned(bytes);
            // SAFETY: the context is current: owners cannot leave the thread; the image is aligned and has its end.
            let loaded =
                device.call("cuModuleLoadData", |driver| unsafe { driver.load(aligned.as_slice().align_to::<u8>().1) });
            match loaded {
                Ok(handle) => return Ok(Rc::new(Self { device: Rc::clone(device), handle, image })),
                Err(error @ Error::Binary(_)) => refused = error,
                Err(other) => return Err(other),
            }
        }
        Err(refused)
    }

    /// Which of the images it is.
    pub fn image(&self) -> usize {
        self.image
    }

    /// The kernel of that name; blocks may have `shared` bytes of dynamic shared memory.
    ///
    /// # Errors
    /// [`Error::Call`], [`Error::Lost`].
    pub fn function(self: &Rc<Self>, name: &str, shared: u32) -> Result<Function, Error> {
        // SAFETY: as above.
        let (handle, takes) =
            self.device.call("cuModuleGetFunction", |driver| unsafe { driver.function(self.handle, name) })?;
        // SAFETY: as above.
        self.device.call("cuFuncSetAttribute", |driver| unsafe { driver.allow_shared(handle, shared) })?;
        Ok(Function { module: Rc::clone(self), handle, name: name.to_owned(), takes })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: as above; functions hold their module.
        self.device.leave("cuModuleUnload", |driver| unsafe { driver.unload(self.handle) });
    }
}

/// The image where a driver may read words, and with a NUL after its end, which PTX must have.
fn aligned(image: &[u8]) -> Vec<u64> {
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_ne_bytes(word)
    };
    image.chunks(8).map(word).chain([0]).collect()
}

/// A kernel.
pub struct Function {
    module: Rc<Module>,
    handle: Handle,
    name: String,
    /// Bytes of each of its arguments.
    takes: Vec<usize>,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Function({})", self.name)
    }
}

impl Function {
    /// Blocks that fit on a multiprocessor at once.
    ///
    /// # Errors
    /// [`Error::Call`], [`Error::Lost`].
    pub fn occupancy(&self, block: u32, shared: u32) -> Result<u32, Error> {
        let of = "cuOccupancyMaxActiveBlocksPerMultiprocessor";
        // SAFETY: the context is current: owners cannot leave the thread.
        self.module.device.call(of, |driver| unsafe { driver.occupancy(self.handle, block, shared) })
    }

    /// Gives the kernel to the stream. Arguments are copied before this returns; their sizes must be those that the loaded kernel has.
    ///
    /// # Safety
    /// The arguments are what the kernel means by them; memory that they name lives until it is done, or as long as the graph that captured it, and
    /// nobody else uses it meanwhile.
    ///
    /// # Errors
    /// [`Error::Arguments`], [`Error::Call`], [`Error::Lost`].
    pub unsafe fn launch(&self, stream: &Stream, launch: &Launch, arguments: &mut [Argument<'_>]) -> Result<(), Error> {
        let given = || arguments.iter().map(|argument| argument.size);
        if !given().eq(self.takes.iter().copied()) {
            let (kernel, takes) = (self.name.clone(), self.takes.clone());
            return Err(Error::Arguments { kernel, takes, given: given().collect() });
        }
        let mut addresses: Vec<*mut c_void> = arguments.iter().map(|argument| argument.address).collect();
        // SAFETY: the context is current; the arguments are borrowed until this returns; and the caller's promise.
        stream.device().call("cuLaunchKernelEx", |driver| unsafe {
            driver.launch(self.handle, launch, stream.handle(), &mut addresses)
        })
    }
}

/// An argument of a kernel: a value that is borrowed until it was copied.
#[derive(Debug)]
pub struct Argument<'a> {
    address: *mut c_void,
    size: usize,
    of: PhantomData<&'a mut ()>,
}

/// A number, an address or a `repr(C)` structure.
pub fn argument<T: Copy>(value: &mut T) -> Argument<'_> {
    Argument { address: std::ptr::from_mut(value).cast(), size: size_of::<T>(), of: PhantomData }
}
