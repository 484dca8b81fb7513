//! The functions of libcuda that are used, by their names and signatures.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};

use cudarc::driver::sys::{self, CUlaunchConfig};

use super::TensorMap;
use crate::error::Error;

pub type Object = *mut c_void;

macro_rules! symbols {
    ($($field:ident = $symbol:literal ($($argument:ty),* $(,)?);)*) => {
        /// The functions, each of the signature that cuda.h gives it.
        pub struct Symbols {
            $(pub $field: unsafe extern "C" fn($($argument),*) -> u32,)*
        }

        impl Symbols {
            pub fn load() -> Result<Self, Error> {
                // SAFETY: the library was found before, and is never unloaded; the signatures are cuda.h's.
                unsafe {
                    let library = sys::culib();
                    Ok(Self {
                        $($field: *library
                            .get(concat!($symbol, "\0").as_bytes())
                            .map_err(|_| Error::TooOld(format!("it lacks {}", $symbol)))?,)*
                    })
                }
            }
        }
    };
}

symbols! {
    init = "cuInit" (c_uint);
    driver_version = "cuDriverGetVersion" (*mut c_int);
    device_count = "cuDeviceGetCount" (*mut c_int);
    device = "cuDeviceGet" (*mut c_int, c_int);
    device_name = "cuDeviceGetName" (*mut c_char, c_int, c_int);
    device_uuid = "cuDeviceGetUuid_v2" (*mut [u8; 16], c_int);
    device_attribute = "cuDeviceGetAttribute" (*mut c_int, c_uint, c_int);
    retain = "cuDevicePrimaryCtxRetain" (*mut Object, c_int);
    release = "cuDevicePrimaryCtxRelease_v2" (c_int);
    set_current = "cuCtxSetCurrent" (Object);
    memory = "cuMemGetInfo_v2" (*mut usize, *mut usize);
    allocate = "cuMemAlloc_v2" (*mut u64, usize);
    free = "cuMemFree_v2" (u64);
    allocate_host = "cuMemHostAlloc" (*mut Object, usize, c_uint);
    free_host = "cuMemFreeHost" (Object);
    fill = "cuMemsetD8Async" (u64, u8, usize, Object);
    upload = "cuMemcpyHtoDAsync_v2" (u64, *const c_void, usize, Object);
    download = "cuMemcpyDtoHAsync_v2" (Object, u64, usize, Object);
    stream_create = "cuStreamCreate" (*mut Object, c_uint);
    stream_destroy = "cuStreamDestroy_v2" (Object);
    stream_query = "cuStreamQuery" (Object);
    stream_wait = "cuStreamWaitEvent" (Object, Object, c_uint);
    event_create = "cuEventCreate" (*mut Object, c_uint);
    event_destroy = "cuEventDestroy_v2" (Object);
    event_record = "cuEventRecord" (Object, Object);
    event_query = "cuEventQuery" (Object);
    event_elapsed = "cuEventElapsedTime_v2" (*mut f32, Object, Object);
    module_load = "cuModuleLoadData" (*mut Object, *const c_void);
    module_unload = "cuModuleUnload" (Object);
    module_function = "cuModuleGetFunction" (*mut Object, Object, *const c_char);
    function_load = "cuFuncLoad" (Object);
    function_parameter = "cuFuncGetParamInfo" (Object, usize, *mut usize, *mut usize);
    function_set = "cuFuncSetAttribute" (Object, c_uint, c_int);
    occupancy = "cuOccupancyMaxActiveBlocksPerMultiprocessor" (*mut c_int, Object, c_int, usize);
    launch = "cuLaunchKernelEx" (*const CUlaunchConfig, Object, *mut Object, *mut Object);
    encode_windows = "cuTensorMapEncodeIm2col" (
        *mut TensorMap, c_uint, c_uint, *mut c_void, *const u64, *const u64, *const c_int, *const c_int, c_uint, c_uint, *const c_uint, c_uint, c_uint,
        c_uint, c_uint
    );
    encode_rows = "cuTensorMapEncodeTiled" (
        *mut TensorMap, c_uint, c_uint, *mut c_void, *const u64, *const u64, *const c_uint, *const c_uint, c_uint, c_uint, c_uint, c_uint
    );
    capture_begin = "cuStreamBeginCapture_v2" (Object, c_uint);
    capture_end = "cuStreamEndCapture" (Object, *mut Object);
    graph_destroy = "cuGraphDestroy" (Object);
    graph_instantiate = "cuGraphInstantiateWithFlags" (*mut Object, Object, c_ulonglong);
    graph_launch = "cuGraphLaunch" (Object, Object);
    graph_end = "cuGraphExecDestroy" (Object);
}
