//! libcuda, loaded when it is asked for.
//!
//! cudarc gives the library, its types and their layouts. Its functions return an enum, and a number that a later driver invents would be undefined
//! behaviour there; they panic where a symbol is absent. So each is looked up here once, by a type that returns a number.

#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, c_int, c_uint, c_void},
    fmt,
    mem::{MaybeUninit, zeroed},
    ptr::null_mut,
};

use cudarc::driver::sys::{self, CUlaunchAttribute, CUlaunchAttributeID, CUlaunchConfig};

use super::{
    Attribute, Driver, Handle, Launch, RowMap, TensorMap, WindowMap,
    symbols::{Object, Symbols},
};
use crate::error::{Error, Status};

/// The driver of this machine.
pub struct Library(Symbols);

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Library")
    }
}

impl Library {
    /// # Errors
    /// [`Error::NoDriver`], [`Error::TooOld`].
    pub fn open() -> Result<Self, Error> {
        // SAFETY: loading runs the library's own start, which asks for nothing.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::NoDriver);
        }
        Ok(Self(Symbols::load()?))
    }
}

fn done(status: u32) -> Result<(), Status> {
    if status == 0 { Ok(()) } else { Err(Status(status)) }
}

/// What a call puts in its first argument.
fn given<T>(call: impl FnOnce(*mut T) -> u32) -> Result<T, Status> {
    let mut value = MaybeUninit::<T>::zeroed();
    done(call(value.as_mut_ptr()))?;
    // SAFETY: numbers and addresses, for which zero is a value, and which the call has set.
    Ok(unsafe { value.assume_init() })
}

fn object(handle: Handle) -> Object {
    handle as Object
}

const NON_BLOCKING: c_uint = 1;
const MAX_DYNAMIC_SHARED: c_uint = 8;
const THREAD_LOCAL: c_uint = 1;
/// Of tensor maps: the type of elements, how they lie, what of them the L2 cache fetches, and what lies outside.
const UINT8: c_uint = 0;
const NOT_INTERLEAVED: c_uint = 0;
const PROMOTED_256: c_uint = 3;
const ZEROS: c_uint = 0;

/// How rows of that many bytes are turned.
fn swizzle(bytes: u64) -> c_uint {
    match bytes {
        128 => 3,
        64 => 2,
        _ => 0,
    }
}

// SAFETY of all calls below: the signatures are cuda.h's; what is handed over lives, as the trait demands.
impl Driver for Library {
    fn start(&self) -> Result<(), Status> {
        done(unsafe { (self.0.init)(0) })
    }

    fn version(&self) -> Result<u32, Status> {
        given(|to| unsafe { (self.0.driver_version)(to) }).map(i32::unsigned_abs)
    }

    fn count(&self) -> Result<u32, Status> {
        given(|to| unsafe { (self.0.device_count)(to) }).map(i32::unsigned_abs)
    }

    fn name(&self, device: u32) -> Result<String, Status> {
        let device = given(|to| unsafe { (self.0.device)(to, device as c_int) })?;
        let name = given(|to: *mut [u8; 128]| unsafe { (self.0.device_name)(to.cast(), 127, device) })?;
        Ok(CStr::from_bytes_until_nul(&name).unwrap_or_default().to_string_lossy().into_owned())
    }

    fn uuid(&self, device: u32) -> Result<[u8; 16], Status> {
        let device = given(|to| unsafe { (self.0.device)(to, device as c_int) })?;
        given(|to| unsafe { (self.0.device_uuid)(to, device) })
    }

    fn attribute(&self, device: u32, attribute: Attribute) -> Result<i32, Status> {
        let device = given(|to| unsafe { (self.0.device)(to, device as c_int) })?;
        given(|to| unsafe { (self.0.device_attribute)(to, attribute as c_uint, device) })
    }

    unsafe fn retain(&self, device: u32) -> Result<(), Status> {
        let device = given(|to| unsafe { (self.0.device)(to, device as c_int) })?;
        let context = given(|to| unsafe { (self.0.retain)(to, device) })?;
        done(unsafe { (self.0.set_current)(context) }).inspect_err(|_| {
            // What was retained is given back; that it cannot be is no other error.
            let _ = unsafe { (self.0.release)(device) };
        })
    }

    unsafe fn release(&self, device: u32) -> Result<(), Status> {
        let device = given(|to| unsafe { (self.0.device)(to, device as c_int) })?;
        let _ = unsafe { (self.0.set_current)(null_mut()) };
        done(unsafe { (self.0.release)(device) })
    }

    unsafe fn memory(&self) -> Result<(u64, u64), Status> {
        let mut all = 0;
        let free = given(|to| unsafe { (self.0.memory)(to, &raw mut all) })?;
        Ok((free as u64, all as u64))
    }

    unsafe fn allocate(&self, bytes: usize) -> Result<u64, Status> {
        given(|to| unsafe { (self.0.allocate)(to, bytes) })
    }

    unsafe fn free(&self, address: u64) -> Result<(), Status> {
        done(unsafe { (self.0.free)(address) })
    }

    unsafe fn allocate_pinned(&self, bytes: usize) -> Result<*mut u8, Status> {
        given(|to| unsafe { (self.0.allocate_host)(to, bytes, 0) }).map(Object::cast)
    }

    unsafe fn free_pinned(&self, address: *mut u8) -> Result<(), Status> {
        done(unsafe { (self.0.free_host)(address.cast()) })
    }

    unsafe fn fill(&self, address: u64, byte: u8, bytes: usize, stream: Handle) -> Result<(), Status> {
        done(unsafe { (self.0.fill)(address, byte, bytes, object(stream)) })
    }

    unsafe fn upload(&self, to: u64, from: *const u8, bytes: usize, stream: Handle) -> Result<(), Status> {
        done(unsafe { (self.0.upload)(to, from.cast(), bytes, object(stream)) })
    }

    unsafe fn download(&self, to: *mut u8, from: u64, bytes: usize, stream: Handle) -> Result<(), Status> {
        done(unsafe { (self.0.download)(to.cast(), from, bytes, object(stream)) })
    }

    unsafe fn new_stream(&self) -> Result<Handle, Status> {
        given(|to: *mut Object| unsafe { (self.0.stream_create)(to, NON_BLOCKING) }).map(|stream| stream as Handle)
    }

    unsafe fn end_stream(&self, stream: Handle) -> Result<(), Status> {
        done(unsafe { (self.0.stream_destroy)(object(stream)) })
    }

    unsafe fn query_stream(&self, stream: Handle) -> Result<(), Status> {
        done(unsafe { (self.0.stream_query)(object(stream)) })
    }

    unsafe fn wait_for_event(&self, stream: Handle, event: Handle) -> Result<(), Status> {
        done(unsafe { (self.0.stream_wait)(object(stream), object(event), 0) })
    }

    unsafe fn new_event(&self) -> Result<Handle, Status> {
        given(|to: *mut Object| unsafe { (self.0.event_create)(to, 0) }).map(|event| event as Handle)
    }

    unsafe fn end_event(&self, event: Handle) -> Result<(), Status> {
        done(unsafe { (self.0.event_destroy)(object(event)) })
    }

    unsafe fn record(&self, event: Handle, stream: Handle) -> Result<(), Status> {
        done(unsafe { (self.0.event_record)(object(event), object(stream)) })
    }

    unsafe fn query_event(&self, event: Handle) -> Result<(), Status> {
        done(unsafe { (self.0.event_query)(object(event)) })
    }

    unsafe fn elapsed(&self, from: Handle, to: Handle) -> Result<f32, Status> {
        given(|ms| unsafe { (self.0.event_elapsed)(ms, object(from), object(to)) })
    }

    unsafe fn load(&self, image: &[u8]) -> Result<Handle, Status> {
        given(|to: *mut Object| unsafe { (self.0.module_load)(to, image.as_ptr().cast()) })
            .map(|module| module as Handle)
    }

    unsafe fn unload(&self, module: Handle) -> Result<(), Status> {
        done(unsafe { (self.0.module_unload)(object(module)) })
    }

    unsafe fn function(&self, module: Handle, name: &str) -> Result<(Handle, Vec<usize>), Status> {
        let name = CString::new(name).map_err(|_| Status::NOT_FOUND)?;
        let function = given(|to: *mut Object| unsafe { (self.0.module_function)(to, object(module), name.as_ptr()) })?;
        // Else it would be loaded at the first launch, perhaps inside of a capture.
        done(unsafe { (self.0.function_load)(function) })?;
        let mut sizes = Vec::new();
        let (mut offset, mut size) = (0, 0);
        while unsafe { (self.0.function_parameter)(function, sizes.len(), &raw mut offset, &raw mut size) } == 0 {
            sizes.push(size);
        }
        Ok((function as Handle, sizes))
    }

    unsafe fn allow_shared(&self, function: Handle, bytes: u32) -> Result<(), Status> {
        done(unsafe { (self.0.function_set)(object(function), MAX_DYNAMIC_SHARED, bytes as c_int) })
    }

    unsafe fn occupancy(&self, function: Handle, block: u32, shared: u32) -> Result<u32, Status> {
        let of = |to| unsafe { (self.0.occupancy)(to, object(function), block as c_int, shared as usize) };
        given(of).map(i32::unsigned_abs)
    }

    unsafe fn launch(
        &self,
        function: Handle,
        launch: &Launch,
        stream: Handle,
        arguments: &mut [*mut c_void],
    ) -> Result<(), Status> {
        // SAFETY: all zeros are an attribute that is ignored, and a union of numbers.
        let mut attributes: [CUlaunchAttribute; 2] = unsafe { zeroed() };
        let mut count = 0;
        if launch.cluster > 1 {
            attributes[count].id = CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
            attributes[count].value.clusterDim =
                sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: launch.cluster, y: 1, z: 1 };
            count += 1;
        }
        if launch.overlaps {
            attributes[count].id = CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
            attributes[count].value.programmaticStreamSerializationAllowed = 1;
            count += 1;
        }
        let [x, y, z] = launch.grid;
        let configuration = CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: launch.block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: launch.shared,
            hStream: object(stream).cast(),
            attrs: attributes.as_mut_ptr(),
            numAttrs: count as c_uint,
        };
        done(unsafe { (self.0.launch)(&raw const configuration, object(function), arguments.as_mut_ptr(), null_mut()) })
    }

    fn window_map(&self, map: &WindowMap) -> Result<TensorMap, Status> {
        let row = map.channels * map.width;
        let (sizes, strides) =
            ([map.channels, map.width, map.height, map.images], [map.channels, row, row * map.height]);
        let corner = |x: i64, y: i64| [x as c_int, y as c_int];
        let (lower, upper) = (corner(map.left, map.top), corner(map.right, map.bottom));
        let steps = [1, map.stride as c_uint, map.stride as c_uint, 1];
        // SAFETY: the arrays have as many elements as the rank says, and are read before this returns.
        given(|to| unsafe {
            (self.0.encode_windows)(
                to,
                UINT8,
                4,
                map.address as *mut c_void,
                sizes.as_ptr(),
                strides.as_ptr(),
                lower.as_ptr(),
                upper.as_ptr(),
                map.bytes as c_uint,
                map.pixels as c_uint,
                steps.as_ptr(),
                NOT_INTERLEAVED,
                swizzle(map.bytes),
                PROMOTED_256,
                ZEROS,
            )
        })
    }

    fn row_map(&self, map: &RowMap) -> Result<TensorMap, Status> {
        let (sizes, strides) = ([map.row_bytes, map.rows], [map.row_bytes]);
        let (part, steps) = ([map.bytes as c_uint, map.box_rows as c_uint], [1, 1]);
        // SAFETY: as above.
        given(|to| unsafe {
            (self.0.encode_rows)(
                to,
                UINT8,
                2,
                map.address as *mut c_void,
                sizes.as_ptr(),
                strides.as_ptr(),
                part.as_ptr(),
                steps.as_ptr(),
                NOT_INTERLEAVED,
                swizzle(map.bytes),
                PROMOTED_256,
                ZEROS,
            )
        })
    }

    unsafe fn begin_capture(&self, stream: Handle) -> Result<(), Status> {
        done(unsafe { (self.0.capture_begin)(object(stream), THREAD_LOCAL) })
    }

    unsafe fn end_capture(&self, stream: Handle) -> Result<Handle, Status> {
        let graph = given(|to: *mut Object| unsafe { (self.0.capture_end)(object(stream), to) })?;
        let executable = given(|to: *mut Object| unsafe { (self.0.graph_instantiate)(to, graph, 0) });
        // The executable one does not need it.
        let _ = unsafe { (self.0.graph_destroy)(graph) };
        executable.map(|graph| graph as Handle)
    }

    unsafe fn launch_graph(&self, graph: Handle, stream: Handle) -> Result<(), Status> {
        done(unsafe { (self.0.graph_launch)(object(graph), object(stream)) })
    }

    unsafe fn end_graph(&self, graph: Handle) -> Result<(), Status> {
        done(unsafe { (self.0.graph_end)(object(graph)) })
    }
}
