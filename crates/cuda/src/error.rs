//! What can go wrong, by what a caller can do about it.

/// A result of the driver, as its header numbers them. A later driver may give numbers that nobody knows yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u32);

/// What a caller can do about a [`Status`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Not yet: what was asked for is still under way.
    NotReady,
    /// Memory, of the device or of pages that stay.
    OutOfMemory,
    /// A binary for other cards, or none: another may load.
    WrongBinary,
    NotFound,
    /// A mistake of the program: the context lives on.
    Argument,
    /// What was captured is no graph; the context lives on.
    Capture,
    /// The context is dead, and with it the device, for this process.
    Lost,
    /// Of an unknown number: nothing is known of the context, so it counts as dead.
    Unknown,
}

impl Status {
    pub const SUCCESS: Self = Self(0);
    pub const OUT_OF_MEMORY: Self = Self(2);
    pub const NOT_READY: Self = Self(600);
    pub const NOT_FOUND: Self = Self(500);
    pub const ILLEGAL_ADDRESS: Self = Self(700);

    /// Numbers of cuda.h, CUDA 13.
    pub fn kind(self) -> Kind {
        match self.0 {
            600 => Kind::NotReady,
            2 => Kind::OutOfMemory,
            // INVALID_IMAGE, NO_BINARY_FOR_GPU, INVALID_PTX, JIT_COMPILER_NOT_FOUND, UNSUPPORTED_PTX_VERSION, JIT_COMPILATION_DISABLED,
            // UNSUPPORTED_EXEC_AFFINITY, INVALID_SOURCE, FILE_NOT_FOUND
            200 | 209 | 218 | 221..=224 | 300 | 301 => Kind::WrongBinary,
            500 => Kind::NotFound,
            // INVALID_VALUE, NOT_INITIALIZED, INVALID_CONTEXT, INVALID_HANDLE, LAUNCH_OUT_OF_RESOURCES, LAUNCH_INCOMPATIBLE_TEXTURING,
            // COOPERATIVE_LAUNCH_TOO_LARGE, NOT_PERMITTED, NOT_SUPPORTED, INVALID_CLUSTER_SIZE
            1 | 3 | 201 | 400 | 701 | 703 | 720 | 800 | 801 | 912 => Kind::Argument,
            900..=908 => Kind::Capture,
            // DEINITIALIZED, NO_DEVICE, INVALID_DEVICE, ECC_UNCORRECTABLE, NVLINK_UNCORRECTABLE, CONTAINED; illegal addresses, timeouts and
            // whatever else a kernel does; SYSTEM_NOT_READY, SYSTEM_DRIVER_MISMATCH
            4 | 100 | 101 | 214 | 220 | 226 | 700 | 702 | 704..=719 | 721 | 802 | 803 => Kind::Lost,
            _ => Kind::Unknown,
        }
    }
}

/// How a device was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The call gave a status that a context does not survive.
    Failed { call: &'static str, status: Status },
    /// What it was given did not end in time.
    Hung { seconds: u32 },
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed { call, status } => {
                let what = match status.0 {
                    214 => ": an uncorrectable ECC error",
                    700 => ": an illegal address",
                    702 => ": a kernel ran too long",
                    719 => ": a kernel failed",
                    _ => "",
                };
                write!(f, "{call} gave {}{what}", status.0)
            }
            Self::Hung { seconds } => write!(f, "it did not end its work in {seconds} s"),
        }
    }
}

/// Why something on a device did not come to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no NVIDIA driver: libcuda.so.1 was not found")]
    NoDriver,
    #[error("the NVIDIA driver is too old: {0}, expected release 580 or later")]
    TooOld(String),
    #[error("the NVIDIA driver does not start: its status is {}", .0.0)]
    Start(Status),
    #[error("there is no cuda:{asked}, the driver shows {count} device(s)")]
    NoDevice { asked: u32, count: u32 },
    #[error("cuda:{ordinal} ({name}) has compute capability {}.{}, expected 8.0 or later", capability.0, capability.1)]
    OldCard { ordinal: u32, name: String, capability: (i32, i32) },
    #[error("{what} takes {needs} MiB of the device, of which {free} MiB are left to it")]
    Full { what: &'static str, needs: u64, free: u64 },
    #[error("{what} takes {needs} MiB of pinned memory, which the machine does not give")]
    Pinned { what: &'static str, needs: u64 },
    #[error("no kernels for this card in the binary: status {}", .0.0)]
    Binary(Status),
    #[error("{call} gave {}", status.0)]
    Call { call: &'static str, status: Status },
    #[error("the kernel {kernel} takes arguments of {takes:?} bytes, it was given {given:?}")]
    Arguments { kernel: String, takes: Vec<usize>, given: Vec<usize> },
    #[error("a copy of {bytes} bytes into {room}")]
    Copy { bytes: usize, room: usize },
    #[error("the device is lost: {0}; it comes back with a new process alone")]
    Lost(Loss),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_nobody_knows_is_no_reason_to_go_on() {
        let kinds = [0, 600, 2, 209, 222, 500, 1, 912, 901, 214, 700, 719, 721, 999, 12_345].map(|n| Status(n).kind());
        use Kind::*;
        let expected = [
            Unknown,
            NotReady,
            OutOfMemory,
            WrongBinary,
            WrongBinary,
            NotFound,
            Argument,
            Argument,
            Capture,
            Lost,
            Lost,
            Lost,
            Lost,
            Unknown,
            Unknown,
        ];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn errors_are_sentences() {
        let lost = Error::Lost(Loss::Failed { call: "cuStreamSynchronize", status: Status(700) });
        assert_eq!(
            lost.to_string(),
            "the device is lost: cuStreamSynchronize gave 700: an illegal address; it comes back with a new process alone"
        );
        let full = Error::Full { what: "weights", needs: 700, free: 12 };
        assert_eq!(full.to_string(), "weights takes 700 MiB of the device, of which 12 MiB are left to it");
    }
}
