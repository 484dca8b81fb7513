//! The calls of the driver that are used, so that tests can put another in its place.

#![allow(unsafe_code)]

#[cfg(feature = "fake")]
pub mod fake;
pub mod library;
mod symbols;

use std::ffi::c_void;

use crate::error::Status;

/// An object of the driver's.
pub type Handle = usize;

/// What can be asked of a device, numbered as in cuda.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Attribute {
    Multiprocessors = 16,
    CapabilityMajor = 75,
    CapabilityMinor = 76,
    /// Of a block that asks for it, bytes.
    SharedMemory = 97,
}

/// How the copy engine finds a tile of a tensor, as a kernel is given it. The driver writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct TensorMap(pub [u64; 16]);

/// Bytes of images (image, row, column, channel) as windows read them: a copy brings `bytes` channels of `pixels` windows that follow each other row
/// by row, at one place of the window. Outside of the images lie zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct WindowMap {
    /// A multiple of 16, as `channels` is.
    pub address: u64,
    pub images: u64,
    pub height: u64,
    pub width: u64,
    /// Bytes of a pixel.
    pub channels: u64,
    /// The column and the row where the first window begins: 0 or less.
    pub left: i64,
    pub top: i64,
    /// Where the last begins, counted from the last column and row: 0 or less where nothing is padded.
    pub right: i64,
    pub bottom: i64,
    pub stride: u64,
    /// Of a copy: windows, and the bytes of each, 64 or 128. They are turned as wgmma reads them.
    pub pixels: u64,
    pub bytes: u64,
}

/// Rows of bytes, of which a copy brings `bytes` of `box_rows`. What lies beyond is zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct RowMap {
    pub address: u64,
    pub rows: u64,
    /// A multiple of 16.
    pub row_bytes: u64,
    pub box_rows: u64,
    /// 64 or 128.
    pub bytes: u64,
}

/// How a kernel is launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a block, bytes.
    pub shared: u32,
    /// Blocks of a cluster, side by side; 1 without.
    pub cluster: u32,
    /// It may begin before the kernel before it has ended, and waits for it by itself.
    pub overlaps: bool,
}

/// The driver. Calls are of one thread, on which a context was made current.
///
/// # Safety
/// Of all calls with handles or addresses: they are of this driver's objects, which live, and belong to the current context. Memory that is named lives
/// until what was asked for has ended. Owners see to it.
#[allow(clippy::missing_safety_doc, clippy::missing_errors_doc)] // as above; any status but success is an error
pub trait Driver {
    fn start(&self) -> Result<(), Status>;
    /// 1000 times the major version of CUDA, and 10 times the minor.
    fn version(&self) -> Result<u32, Status>;
    fn count(&self) -> Result<u32, Status>;
    fn name(&self, device: u32) -> Result<String, Status>;
    fn uuid(&self, device: u32) -> Result<[u8; 16], Status>;
    fn attribute(&self, device: u32, attribute: Attribute) -> Result<i32, Status>;

    /// Makes the device's primary context current on this thread.
    unsafe fn retain(&self, device: u32) -> Result<(), Status>;
    unsafe fn release(&self, device: u32) -> Result<(), Status>;
    /// Bytes: free, and in all.
    unsafe fn memory(&self) -> Result<(u64, u64), Status>;

    unsafe fn allocate(&self, bytes: usize) -> Result<u64, Status>;
    unsafe fn free(&self, address: u64) -> Result<(), Status>;
    unsafe fn allocate_pinned(&self, bytes: usize) -> Result<*mut u8, Status>;
    unsafe fn free_pinned(&self, address: *mut u8) -> Result<(), Status>;
    unsafe fn fill(&self, address: u64, byte: u8, bytes: usize, stream: Handle) -> Result<(), Status>;
    unsafe fn upload(&self, to: u64, from: *const u8, bytes: usize, stream: Handle) -> Result<(), Status>;
    unsafe fn download(&self, to: *mut u8, from: u64, bytes: usize, stream: Handle) -> Result<(), Status>;

    unsafe fn new_stream(&self) -> Result<Handle, Status>;
    unsafe fn end_stream(&self, stream: Handle) -> Result<(), Status>;
    /// [`Status::NOT_READY`] while there is work.
    unsafe fn query_stream(&self, stream: Handle) -> Result<(), Status>;
    unsafe fn wait_for_event(&self, stream: Handle, event: Handle) -> Result<(), Status>;

    unsafe fn new_event(&self) -> Result<Handle, Status>;
    unsafe fn end_event(&self, event: Handle) -> Result<(), Status>;
    unsafe fn record(&self, event: Handle, stream: Handle) -> Result<(), Status>;
    unsafe fn query_event(&self, event: Handle) -> Result<(), Status>;
    /// Milliseconds.
    unsafe fn elapsed(&self, from: Handle, to: Handle) -> Result<f32, Status>;

    /// A cubin, or PTX that ends in NUL; aligned to 8 bytes.
    unsafe fn load(&self, image: &[u8]) -> Result<Handle, Status>;
    unsafe fn unload(&self, module: Handle) -> Result<(), Status>;
    /// A kernel, loaded, and the bytes of each of its arguments.
    unsafe fn function(&self, module: Handle, name: &str) -> Result<(Handle, Vec<usize>), Status>;
    unsafe fn allow_shared(&self, function: Handle, bytes: u32) -> Result<(), Status>;
    /// Blocks that fit on a multiprocessor at once.
    unsafe fn occupancy(&self, function: Handle, block: u32, shared: u32) -> Result<u32, Status>;
    unsafe fn launch(
        &self,
        function: Handle,
        launch: &Launch,
        stream: Handle,
        arguments: &mut [*mut c_void],
    ) -> Result<(), Status>;

    fn window_map(&self, map: &WindowMap) -> Result<TensorMap, Status>;
    fn row_map(&self, map: &RowMap) -> Result<TensorMap, Status>;

    unsafe fn begin_capture(&self, stream: Handle) -> Result<(), Status>;
    /// An executable graph of what was captured. The capture ends in every case.
    unsafe fn end_capture(&self, stream: Handle) -> Result<Handle, Status>;
    unsafe fn launch_graph(&self, graph: Handle, stream: Handle) -> Result<(), Status>;
    unsafe fn end_graph(&self, graph: Handle) -> Result<(), Status>;
}
