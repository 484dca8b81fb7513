//! Networks in int8 on a device, and those of other precisions on the CPU, as one executor.

use std::{collections::VecDeque, fmt, num::NonZeroUsize, sync::Arc};

use super::{CudaExecutor, CudaSettings, OpenDriver, Tuning};
use crate::{
    cpu::CpuExecutor,
    executor::{Batching, ExecuteError, Executor, LoadError, NetworkId, Outputs, Planned, Sight},
    input::InputSize,
    precision::Precision,
};

#[derive(Debug, Clone, Copy)]
enum Place {
    Device(NetworkId),
    Cpu(NetworkId),
}

/// A batch that is not complete.
enum Begun {
    Device,
    /// The CPU computes it when it is asked for.
    Cpu(NetworkId, Vec<Arc<Sight>>),
}

/// See the module.
pub struct DividedExecutor {
    device: CudaExecutor,
    cpu: Option<CpuExecutor>,
    places: Vec<Place>,
    begun: VecDeque<Begun>,
}

impl fmt::Debug for DividedExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DividedExecutor")
            .field("device", &self.device)
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

impl DividedExecutor {
    /// `threads` are those of the CPU's networks.
    ///
    /// # Errors
    /// The network's place, and why it is not taken.
    pub fn new(
        networks: Vec<Planned>,
        threads: NonZeroUsize,
        driver: OpenDriver,
        settings: CudaSettings,
    ) -> Result<Self, (NetworkId, LoadError)> {
        let (mut places, mut kept, mut of_each) = (Vec::new(), [Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for (at, network) in networks.into_iter().enumerate() {
            let on_cpu = usize::from(network.precision != Precision::Int8);
            let id = NetworkId(of_each[on_cpu].len());
            places.push(if on_cpu == 1 { Place::Cpu(id) } else { Place::Device(id) });
            kept[on_cpu].push(NetworkId(at));
            of_each[on_cpu].push(network);
        }
        let [on_device, on_cpu] = of_each;
        if on_device.is_empty() {
            return Err((NetworkId(0), LoadError::Unsupported("another precision than int8")));
        }
        let placed = |on_cpu: usize| {
            let kept = kept[on_cpu].clone();
            move |(at, error): (NetworkId, LoadError)| (kept.get(at.0).copied().unwrap_or(NetworkId(0)), error)
        };
        let cpu = if on_cpu.is_empty() { None } else { Some(CpuExecutor::new(on_cpu, threads).map_err(placed(1))?) };
        let device = CudaExecutor::new(on_device, driver, settings).map_err(placed(0))?;
        Ok(Self { device, cpu, places, begun: VecDeque::new() })
    }

    /// As [`CudaExecutor::tuning`].
    pub fn tuning(&self) -> &Tuning {
        self.device.tuning()
    }

    /// As [`CudaExecutor::differ`].
    pub fn differ(&self) -> &[String] {
        self.device.differ()
    }

    fn place(&self, network: NetworkId) -> Result<Place, ExecuteError> {
        let place = self.places.get(network.0).copied();
        place.ok_or_else(|| ExecuteError::Device(format!("there is no network {}", network.0)))
    }

    fn of<T>(&self, network: NetworkId, ask: impl Fn(&dyn Executor, NetworkId) -> T) -> Option<T> {
        match self.place(network).ok()? {
            Place::Device(id) => Some(ask(&self.device, id)),
            Place::Cpu(id) => self.cpu.as_ref().map(|cpu| ask(cpu, id)),
        }
    }
}

impl Executor for DividedExecutor {
    fn input_size(&self, network: NetworkId) -> InputSize {
        self.of(network, |executor, id| executor.input_size(id)).unwrap_or(InputSize { width: 0, height: 0 })
    }

    /// As many in flight as on the device: what is the CPU's waits here.
    fn batching(&self, network: NetworkId) -> Batching {
        let in_flight = self.device.batching(NetworkId(0)).in_flight;
        let batching = self.of(network, |executor, id| executor.batching(id)).unwrap_or_else(Batching::one_by_one);
        Batching { in_flight, ..batching }
    }

    fn submit(&mut self, network: NetworkId, sights: &[Arc<Sight>]) -> Result<(), ExecuteError> {
        let begun = match self.place(network)? {
            Place::Device(id) => {
                self.device.submit(id, sights)?;
                Begun::Device
            }
            Place::Cpu(id) => Begun::Cpu(id, sights.to_vec()),
        };
        self.begun.push_back(begun);
        Ok(())
    }

    fn complete(&mut self) -> Result<Outputs<'_>, ExecuteError> {
        let none = || ExecuteError::Device("no batch is begun".into());
        match self.begun.pop_front().ok_or_else(none)? {
            Begun::Device => self.device.complete(),
            Begun::Cpu(network, sights) => {
                let cpu = self.cpu.as_mut().ok_or_else(none)?;
                cpu.submit(network, &sights)?;
                cpu.complete()
            }
        }
    }
}
