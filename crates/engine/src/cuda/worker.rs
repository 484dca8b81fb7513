//! What one device runs: all networks, on two lanes. Lives on one thread.

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::Arc,
};

use vultus_cuda::{Buffer, Device, Error, Function, Module, Pinned, Stream};
use zeroize::Zeroizing;

use super::{
    lane::{self, Lane, Sized, failed},
    layout::Constants,
    ops::{HOPPER_TILES, Stem, TILES},
    place::Card,
    program::DeviceProgram,
    tune::measure,
    tuning::Tuning,
};
use crate::{
    executor::{ExecuteError, NetworkId, Sight},
    input::InputSize,
};

/// Images of a batch for which there is a graph: a batch between two of them costs what the greater does.
const SIZES: [usize; 5] = [1, 8, 32, 128, 256];
/// Batches that may be under way.
pub const LANES: usize = 2;
/// The capability that has more than all others.
const HOPPER: (i32, i32) = (9, 0);
/// What stays free of the device's memory, for the driver and others: one part of so many.
const SPARED: u64 = 16;

/// What is under way, and what it needs. Fields are dropped in their order.
#[derive(Debug)]
pub struct Worker {
    lanes: Vec<Lane>,
    /// Graphs need the module that these hold, and do not hold it themselves.
    _functions: BTreeMap<&'static str, Function>,
    /// Those that have a batch, the oldest first.
    begun: VecDeque<usize>,
    networks: Vec<Sized>,
    sizes: Vec<InputSize>,
    pub tuning: Tuning,
    /// Methods that the tuning left out, since they did not have the bits of others.
    pub differ: Vec<String>,
    _constants: Buffer,
}

/// The networks, before there is a device.
#[derive(Debug)]
pub struct Programs {
    pub programs: Vec<(DeviceProgram, InputSize)>,
    pub constants: Constants,
}

impl Worker {
    /// Loads the kernels and the networks: `images` are binaries with all kernels, the first that the card takes is taken. Without a tuning it is
    /// measured now.
    pub fn new(
        device: Rc<Device>,
        images: &[&[u8]],
        programs: Programs,
        tuning: Option<Tuning>,
    ) -> Result<Self, Error> {
        let module = Module::new(&device, images)?;
        let hopper = device.info().capability == HOPPER;
        let functions = functions(&module, hopper)?;
        let constants = upload(&device, &programs.constants)?;
        let budget = device.free_memory()?.min(device.memory_left()) * (SPARED - 1) / SPARED / LANES as u64;
        let multiprocessors = usize::try_from(device.info().multiprocessors).unwrap_or(1).max(1);
        let known = tuning.clone().unwrap_or_default();
        let card = Card { multiprocessors, hopper, tuning: &known };
        let (mut networks, mut sizes) = (Vec::new(), Vec::new());
        for (program, size) in programs.programs {
            let within = |images: &usize| *images <= program.most_images();
            let mut sized = Sized { sizes: SIZES.into_iter().filter(within).collect(), program };
            let fits = |sized: &Sized| {
                let (tensors, partial, tickets) = lane::needs(std::slice::from_ref(sized), &card);
                (tensors + partial + tickets * size_of::<i32>()) as u64 <= budget
            };
            while sized.sizes.len() > 1 && !fits(&sized) {
                sized.sizes.pop();
            }
            networks.push(sized);
            sizes.push(size);
        }
        let (tuning, differ) = match tuning {
            Some(given) => (given, vec![]),
            None => measure(&device, &networks, &functions, &constants, &card)?,
        };
        let card = Card { tuning: &tuning, ..card };
        let lane = |_| Lane::new(&device, &networks, &functions, &constants, &card);
        let lanes = (0..LANES).map(lane).collect::<Result<_, _>>()?;
        Ok(Self {
            lanes,
            _functions: functions,
            begun: VecDeque::new(),
            networks,
            sizes,
            tuning,
            differ,
            _constants: constants,
        })
    }

    /// Numbers of images of a batch, of each network.
    pub fn sizes(&self) -> Vec<Vec<usize>> {
        self.networks.iter().map(|network| network.sizes.clone()).collect()
    }

    /// Begins a batch, on a lane that rests.
    pub fn submit(&mut self, network: NetworkId, sights: &[Arc<Sight>]) -> Result<(), ExecuteError> {
        let sized = self.networks.get(network.0);
        let sized = sized.ok_or_else(|| ExecuteError::Device(format!("there is no network {}", network.0)))?;
        let most = sized.sizes.last().copied().unwrap_or(1);
        if sights.is_empty() || sights.len() > most {
            return Err(ExecuteError::Device(format!("a batch of {}, expected 1 to {most} images", sights.len())));
        }
        let resting = self.lanes.iter().position(|lane| !lane.is_busy());
        let at = resting.ok_or_else(|| ExecuteError::Device(format!("{LANES} batches are under way already")))?;
        let size = self.sizes[network.0];
        self.lanes[at].begin(network, sized, sights.len(), |index, to| {
            to.copy_from_slice(sights[index].pixels(index, size)?.rgb8());
            Ok(())
        })?;
        self.begun.push_back(at);
        Ok(())
    }

    /// Waits for the batch that was begun first: its network, and its outputs one image after the other.
    pub fn complete(&mut self) -> Result<(NetworkId, Zeroizing<Vec<f32>>), ExecuteError> {
        let at = self.begun.pop_front().ok_or_else(|| ExecuteError::Device("no batch is begun".into()))?;
        self.lanes[at].end(&self.networks).map_err(failed)
    }
}

/// All kernels, with the shared memory that they take.
fn functions(module: &Rc<Module>, hopper: bool) -> Result<BTreeMap<&'static str, Function>, Error> {
    let of_hopper = HOPPER_TILES.iter().filter(|_| hopper);
    let of_hopper = of_hopper.flat_map(|tile| tile.names.map(|name| (name, tile.shared())));
    let tiles = TILES.iter().flat_map(|tile| tile.names().map(|name| (name, tile.shared()))).chain(of_hopper);
    let plain =
        ["depthwise", "grouped", "elementwise", "normalise", "pool", "reduce", "move", "digest"].map(|name| (name, 0));
    let all = tiles.chain(Stem::KERNELS).chain(plain);
    all.map(|(name, shared)| Ok((name, module.function(name, shared)?))).collect()
}

#[allow(unsafe_code)]
fn upload(device: &Rc<Device>, constants: &Constants) -> Result<Buffer, Error> {
    let bytes = constants.bytes();
    let mut from = Pinned::new(device, "weights", bytes.len())?;
    let to = Buffer::new(device, "weights", bytes.len())?;
    let stream = Stream::new(device)?;
    // SAFETY: no copy is under way yet; and it is waited for before either goes, or the device is lost, and nothing is freed.
    unsafe {
        from.write()[..bytes.len()].copy_from_slice(bytes);
        stream.upload(&to, &from, bytes.len())?;
    }
    stream.wait()?;
    Ok(to)
}
