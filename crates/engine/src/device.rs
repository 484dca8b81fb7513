//! Where networks run.

use std::fmt;

use vultus_cuda::Library;

use crate::cuda;

/// The device that the operator chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The fastest that is there.
    #[default]
    Auto,
    Cpu,
    /// A CUDA device by its number.
    Cuda(u32),
}

/// Why there is no such device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    #[error("expected auto, cpu or cuda:N")]
    Word,
    #[error("cuda:{0}: {1}; use auto or cpu")]
    Cuda(u32, vultus_cuda::Error),
    #[error("cuda:{0}: this program was built without CUDA (VULTUS_WITHOUT_CUDA=1); use auto or cpu")]
    NotBuilt(u32),
}

impl DeviceChoice {
    /// `auto`, `cpu` or `cuda:N`.
    pub fn parse(word: &str) -> Result<Self, DeviceError> {
        match (word, word.strip_prefix("cuda:")) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            (_, Some(n)) if n.bytes().all(|b| b.is_ascii_digit()) => {
                n.parse().map(Self::Cuda).map_err(|_| DeviceError::Word)
            }
            _ => Err(DeviceError::Word),
        }
    }

    /// Whether it is there. Of `auto` something always is.
    pub fn check(self) -> Result<(), DeviceError> {
        match self {
            Self::Auto | Self::Cpu => Ok(()),
            Self::Cuda(n) if !cuda::is_built() => Err(DeviceError::NotBuilt(n)),
            Self::Cuda(n) => {
                let found = Library::open().and_then(|driver| vultus_cuda::device(&driver, n));
                found.map(drop).map_err(|error| DeviceError::Cuda(n, error))
            }
        }
    }
}

/// The CUDA devices that kernels can run on, by their numbers; or why there is none.
///
/// # Errors
/// [`DeviceError`] of device 0, where no other is good.
pub fn cuda_devices() -> Result<Vec<u32>, DeviceError> {
    if !cuda::is_built() {
        return Err(DeviceError::NotBuilt(0));
    }
    let all = Library::open().and_then(|driver| vultus_cuda::devices(&driver));
    let all = all.map_err(|error| DeviceError::Cuda(0, error))?;
    let good: Vec<u32> =
        all.iter().map(|device| device.ordinal).filter(|&n| DeviceChoice::Cuda(n).check().is_ok()).collect();
    if good.is_empty() {
        DeviceChoice::Cuda(0).check()?;
    }
    Ok(good)
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

impl std::str::FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(word: &str) -> Result<Self, DeviceError> {
        Self::parse(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_devices() {
        assert_eq!(DeviceChoice::parse("auto"), Ok(DeviceChoice::Auto));
        assert_eq!(DeviceChoice::parse("cpu"), Ok(DeviceChoice::Cpu));
        assert_eq!(DeviceChoice::parse("cuda:3"), Ok(DeviceChoice::Cuda(3)));
        for bad in ["", "gpu", "cuda", "cuda:", "cuda:-1", "cuda:+1", "cuda:x", "cuda:99999999999", "CPU"] {
            assert_eq!(DeviceChoice::parse(bad), Err(DeviceError::Word), "{bad}");
        }
    }

    #[test]
    fn cuda_says_what_is_missing() {
        let e = DeviceChoice::Cuda(9999).check().unwrap_err();
        let said = e.to_string();
        assert!(said.starts_with("cuda:9999: ") && said.ends_with("; use auto or cpu"), "{said}");
        assert!(matches!(e, DeviceError::Cuda(9999, _) | DeviceError::NotBuilt(9999)), "driver or not: {said}");
        assert_eq!(DeviceChoice::Auto.check(), Ok(()));
    }
}
