//! Where a model set's networks run: on the CPU, or the face network on a CUDA device.
//!
//! Only int8 has the same bits on both, so only it runs on a device; networks that find faces and place landmarks run in f32 on the CPU beside it, and
//! crops are the same wherever templates are made. A device serves once it has given the CPU's bits for golden faces.

use std::{num::NonZeroUsize, sync::Arc};

use vultus_engine::{
    cpu::CpuExecutor,
    cuda::{self, CudaSettings, DividedExecutor},
    device::{DeviceChoice, DeviceError, cuda_devices},
    executor::{Batching, ExecuteError, Executor, LoadError, NetworkId, Sight, run},
    precision::Precision,
};

use super::{
    golden::Golden,
    role::Role,
    set::{ModelSet, OpenError},
};

impl ModelSet {
    /// Loads the networks onto a device, the face network in the card's precision. `threads` are those of the CPU.
    pub fn executor(&self, device: DeviceChoice, threads: NonZeroUsize) -> Result<Box<dyn Executor>, OpenError> {
        self.executor_in(self.card().precision, device, threads)
    }

    /// With the face network in a precision of the caller's: for measurements. The others run in f32.
    pub fn executor_in(
        &self,
        precision: Precision,
        device: DeviceChoice,
        threads: NonZeroUsize,
    ) -> Result<Box<dyn Executor>, OpenError> {
        device.check()?;
        let on_cpu = || -> Result<Box<dyn Executor>, OpenError> {
            Ok(Box::new(CpuExecutor::new(self.networks(precision)?, threads).map_err(failed)?))
        };
        match device {
            DeviceChoice::Cpu => on_cpu(),
            DeviceChoice::Cuda(ordinal) => self.on_cuda(precision, ordinal, threads),
            DeviceChoice::Auto => match self.on_all_devices(precision, threads) {
                Ok(mut executors) => executors.pop().map_or_else(on_cpu, Ok),
                Err(_) => on_cpu(),
            },
        }
    }

    /// For a server: executors that run batches at the same time. On a CPU there is one for each of `threads`, of one set of weights; otherwise
    /// one for each device. The log says which, and why.
    pub fn executors(&self, device: DeviceChoice, threads: NonZeroUsize) -> Result<Vec<Box<dyn Executor>>, OpenError> {
        device.check()?;
        let precision = self.card().precision;
        let tried = match device {
            DeviceChoice::Cpu => Err("it was asked for".to_owned()),
            DeviceChoice::Cuda(ordinal) => {
                let executor = self.on_cuda(precision, ordinal, threads)?;
                tracing::info!(device = %device, "networks run on a device; it was asked for, and has the CPU's bits");
                Ok(vec![executor])
            }
            DeviceChoice::Auto => self.on_all_devices(precision, threads),
        };
        match tried {
            Ok(executors) => Ok(executors),
            Err(why) => {
                tracing::info!(device = "cpu", %why, "networks run on the CPU");
                let each = CpuExecutor::for_each_thread(self.networks(precision)?, threads).map_err(failed)?;
                Ok(each.into_iter().map(|executor| Box::new(executor) as Box<dyn Executor>).collect())
            }
        }
    }

    /// An executor for each device that gives the CPU's bits, or why there is none.
    fn on_all_devices(&self, precision: Precision, threads: NonZeroUsize) -> Result<Vec<Box<dyn Executor>>, String> {
        if precision != Precision::Int8 {
            return Err(format!("the face network runs in {}, on a device in int8 alone", precision.as_str()));
        }
        let mut executors = Vec::new();
        let mut refused = "there is no device".to_owned();
        for ordinal in cuda_devices().map_err(|e| e.to_string())? {
            let device = DeviceChoice::Cuda(ordinal);
            match self.on_cuda(precision, ordinal, threads) {
                Ok(executor) => {
                    tracing::info!(%device, "networks run on a device; it is there, and has the CPU's bits");
                    executors.push(executor);
                }
                Err(error) => {
                    tracing::warn!(%device, %error, "a device is left alone");
                    refused = error.to_string();
                }
            }
        }
        if executors.is_empty() { Err(refused) } else { Ok(executors) }
    }

    fn on_cuda(
        &self,
        precision: Precision,
        ordinal: u32,
        threads: NonZeroUsize,
    ) -> Result<Box<dyn Executor>, OpenError> {
        if precision != Precision::Int8 {
            return Err(OpenError::OnDevice { device: DeviceChoice::Cuda(ordinal), precision });
        }
        let networks = self.networks(precision)?;
        let device = DeviceChoice::Cuda(ordinal);
        let name = self.tuning_name(ordinal)?;
        let known = self.tunings().read(&name);
        let is_known = known.is_some();
        let settings = CudaSettings { tuning: known, ..CudaSettings::of(ordinal) };
        let divided = DividedExecutor::new(networks, threads, cuda::driver(), settings);
        let mut executor = divided.map_err(failed)?;
        for method in executor.differ() {
            tracing::warn!(%device, method, "a kernel does not have the bits of others, and is left out");
        }
        let compared = self.has_the_cpus_bits(&mut executor, precision, threads);
        match compared.map_err(|source| OpenError::SelfTest { device, source })? {
            true => {
                if !is_known {
                    self.tunings().write(&name, executor.tuning());
                }
                Ok(Box::new(executor))
            }
            false => Err(OpenError::Bits { device }),
        }
    }

    /// Under which a card's tuning for this model is kept.
    fn tuning_name(&self, ordinal: u32) -> Result<String, OpenError> {
        let model = self.template_digest().to_string();
        let card = cuda::name_of(ordinal).map_err(|error| DeviceError::Cuda(ordinal, error))?;
        Ok(format!("{card}-{}", &model[..16]))
    }

    /// Measures anew which kernels are the fastest for this model on a card, and keeps it: how many convolutions, of all sizes of batches.
    ///
    /// # Errors
    /// As [`Self::executor`].
    pub fn tune(&self, ordinal: u32, threads: NonZeroUsize) -> Result<usize, OpenError> {
        DeviceChoice::Cuda(ordinal).check()?;
        let name = self.tuning_name(ordinal)?;
        self.tunings().remove(&name).map_err(|source| OpenError::Tuning { source })?;
        self.on_cuda(self.card().precision, ordinal, threads)?;
        Ok(self.tunings().read(&name).map_or(0, |tuning| tuning.len()))
    }

    /// Whether the golden faces give what the CPU makes of them, bit for bit: in batches of every size, as many at once as there may be.
    fn has_the_cpus_bits(
        &self,
        executor: &mut dyn Executor,
        precision: Precision,
        threads: NonZeroUsize,
    ) -> Result<bool, ExecuteError> {
        let network = Role::Embed.network();
        let images = Golden::images(Role::Embed, executor.input_size(network));
        let refused = |e: OpenError| ExecuteError::Device(e.to_string());
        let networks = self.networks(precision).map_err(refused)?;
        let mut cpu = CpuExecutor::new(networks, threads).map_err(|e| refused(failed(e)))?;
        let expected = run(&mut cpu, network, &images.iter().collect::<Vec<_>>())?;
        let sights: Vec<_> = images.into_iter().map(|image| Arc::new(Sight::Made(image))).collect();
        let Batching { sizes, in_flight } = executor.batching(network);
        let mut same = true;
        for size in sizes {
            let batch: Vec<_> = sights.iter().cycle().take(size).cloned().collect();
            for _ in 0..in_flight {
                executor.submit(network, &batch)?;
            }
            for _ in 0..in_flight {
                let outputs = executor.complete()?;
                let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                let expected = expected.iter().cycle();
                same &=
                    outputs.iter().len() == size && outputs.iter().zip(expected).all(|(got, e)| bits(got) == bits(e));
            }
        }
        Ok(same)
    }
}

fn failed((NetworkId(place), source): (NetworkId, LoadError)) -> OpenError {
    // As many as there are roles, in their order.
    let role = Role::ALL.get(place).copied().unwrap_or(Role::Embed);
    OpenError::Network { role, source }
}
