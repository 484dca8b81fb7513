//! A network as it stands in an ONNX file, without a card: to measure it, look at it and compare it before it becomes a
//! bundle.

use std::{num::NonZeroUsize, path::Path};

use vultus_engine::{
    candle,
    cpu::{CpuExecutor, calibrate},
    cuda::{self, CudaExecutor, CudaSettings},
    device::DeviceChoice,
    executor::{ExecuteError, Executor, LoadError, Planned},
    graph::Graph,
    image::Pixels,
    input::{Colour, Input},
    onnx::{self, OnnxError},
    plan::Plan,
    precision::Precision,
    weights::Weights,
};

/// What a file with an input of any size gets: the side that ArcFace networks take, pixels.
pub const ARCFACE_SIDE: u32 = 112;

/// Why a file cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum BareError {
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    #[error("the network {0}")]
    Load(#[from] LoadError),
    #[error(transparent)]
    Execute(#[from] ExecuteError),
}

/// A network and what it is taken to expect.
#[derive(Debug)]
pub struct Bare {
    /// The size that the file says, RGB, each value `(v - 127.5) / 127.5`: what ArcFace networks are trained with.
    pub input: Input,
    pub graph: Graph,
    pub weights: Weights,
    /// Of the file.
    pub sha256: [u8; 32],
}

impl Bare {
    /// Reads an ONNX file; `output` names the output to take, where it has several.
    pub fn open(path: &Path, output: Option<&str>) -> Result<Self, OnnxError> {
        let size = (ARCFACE_SIDE, ARCFACE_SIDE);
        let onnx::Imported { graph, weights, sha256, .. } = onnx::open(path, size, output)?;
        let input = Input {
            // The importer bounds both sides.
            width: u32::try_from(graph.input.width).unwrap_or(u32::MAX),
            height: u32::try_from(graph.input.height).unwrap_or(u32::MAX),
            colour: Colour::Rgb,
            mean: [127.5; 3],
            scale: 1.0 / 127.5,
        };
        Ok(Self { input, graph, weights, sha256 })
    }

    /// Ready to run on a device; the weights move there. Comes with the operations for one image. There is no card to
    /// say activation ranges: int8 takes those of `seen`, images of the network's size. `threads` are those of the CPU.
    pub fn into_executor(
        self,
        precision: Precision,
        device: DeviceChoice,
        threads: NonZeroUsize,
        seen: &[&Pixels],
    ) -> Result<(Box<dyn Executor>, u64), LoadError> {
        let ranges = match precision {
            Precision::Int8 => calibrate::ranges(Plan::new(&self.graph, &self.weights)?, &self.input, seen, threads)?,
            _ => vec![],
        };
        let mut plan = Plan::of(&self.graph, self.weights)?;
        if precision == Precision::Int8 {
            plan = plan.with_ranges(&ranges)?;
        }
        let flops = plan.flops();
        let planned = vec![Planned { plan, input: self.input, precision }];
        let executor: Result<Box<dyn Executor>, _> = match device {
            DeviceChoice::Auto | DeviceChoice::Cpu => CpuExecutor::new(planned, threads).map(|e| Box::new(e) as _),
            DeviceChoice::Cuda(ordinal) => {
                let device = CudaExecutor::new(planned, cuda::driver(), CudaSettings::of(ordinal));
                device.map(|e| Box::new(e) as _)
            }
        };
        Ok((executor.map_err(|(_, error)| error)?, flops))
    }

    /// By the reference executor: slow and plain.
    pub fn reference(&self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ExecuteError> {
        candle::reference(&self.graph, &self.weights, &self.input, images)
    }
}
