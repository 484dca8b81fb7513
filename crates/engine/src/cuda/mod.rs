//! The executor for CUDA devices: integer networks ([`crate::int8`]), with the CPU's bits.
//!
//! A program becomes a list of launches ([`program`], [`ops`]) of the kernels in `kernels/net`, captured as one graph for each number of images ([`lane`]).
//! A thread owns the device ([`worker`]); who owns the executor asks it, and does not wait longer for an answer than a device may take: a driver that
//! does not return is a device that is lost.

mod arguments;
mod divided;
#[cfg(test)]
mod executor_tests;
mod lane;
mod layout;
#[cfg(test)]
mod methods_tests;
#[cfg(test)]
mod networks_tests;
mod ops;
mod place;
mod program;
#[cfg(test)]
mod tests;
mod tune;
mod tuning;
mod worker;

use std::{
    fmt,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use vultus_cuda::{Device, Driver, Error, Library, Limits};
use zeroize::Zeroizing;

use self::{
    layout::Constants,
    program::DeviceProgram,
    worker::{LANES, Programs, Worker},
};
use crate::{
    executor::{Batching, ExecuteError, Executor, LoadError, NetworkId, Outputs, Planned, Sight},
    input::InputSize,
    int8::Program,
    precision::Precision,
};

/// What a device is opened with.
#[derive(Debug, Clone)]
pub struct CudaSettings {
    pub ordinal: u32,
    pub limits: Limits,
    /// Binaries with all kernels; the first that the card takes is taken.
    pub images: &'static [&'static [u8]],
    /// Of this card, driver and these networks; without one it is measured while the device is opened.
    pub tuning: Option<Tuning>,
}

pub use divided::DividedExecutor;
pub use tuning::Tuning;

/// For work that was given to a device, until it counts as lost: many times what the largest batch takes.
pub const PATIENCE: Duration = Duration::from_secs(10);

impl CudaSettings {
    /// Of that device, with this program's kernels and as much memory as there is.
    pub fn of(ordinal: u32) -> Self {
        Self {
            ordinal,
            limits: Limits { memory: u64::MAX, patience: PATIENCE },
            images: vultus_kernels::NET,
            tuning: None,
        }
    }
}

/// Whether kernels were built into this program.
pub fn is_built() -> bool {
    !vultus_kernels::NET.is_empty()
}

/// What a tuning depends on besides the networks, as a word: the card, its driver and the kernels.
///
/// # Errors
/// Where there is no such card.
pub fn name_of(ordinal: u32) -> Result<String, Error> {
    let library = Library::open()?;
    let info = vultus_cuda::device(&library, ordinal)?;
    let version = library.version().map_err(Error::Start)?;
    let kernels = vultus_kernels::NET.iter().fold(Sha256::new(), |hash, image| hash.chain_update(image)).finalize();
    let kernels: String = kernels.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let card: String = info.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    Ok(format!("{card}-{version}-{kernels}"))
}

/// This machine's driver.
pub fn driver() -> OpenDriver {
    Box::new(|| Ok(Box::new(Library::open()?)))
}

/// How much longer than the device an answer may take: copies of pixels into pinned memory.
const MORE: Duration = Duration::from_secs(2);
/// Loading networks, and the first start of a driver.
const START: Duration = Duration::from_secs(120);

enum Command {
    Submit(NetworkId, Vec<Arc<Sight>>),
    Complete,
}

/// What a worker says of itself.
struct Started {
    sizes: Vec<Vec<usize>>,
    tuning: Tuning,
    differ: Vec<String>,
}

enum Answer {
    Started(Result<Started, Error>),
    Submitted(Result<(), ExecuteError>),
    Completed(Result<(NetworkId, Zeroizing<Vec<f32>>), ExecuteError>),
}

/// Runs networks on one device, two batches at a time.
pub struct CudaExecutor {
    networks: Vec<Known>,
    commands: Option<SyncSender<Command>>,
    answers: Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
    patience: Duration,
    tuning: Tuning,
    differ: Vec<String>,
    /// Why it is.
    lost: Option<String>,
    /// Of the last batch.
    outputs: Zeroizing<Vec<f32>>,
}

/// What is known of a network where the device is not.
struct Known {
    size: InputSize,
    sizes: Vec<usize>,
    /// Values that it gives for an image.
    outputs: usize,
}

impl fmt::Debug for CudaExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaExecutor").field("lost", &self.lost).finish_non_exhaustive()
    }
}

/// Opens a driver, on the thread that will own the device.
pub type OpenDriver = Box<dyn FnOnce() -> Result<Box<dyn Driver>, Error> + Send>;

impl CudaExecutor {
    /// # Errors
    /// The network's place, and why it is not taken; what concerns all of them is told of the first.
    pub fn new(
        networks: Vec<Planned>,
        driver: OpenDriver,
        settings: CudaSettings,
    ) -> Result<Self, (NetworkId, LoadError)> {
        let (programs, mut networks) = load(networks)?;
        let patience = settings.limits.patience;
        let (commands, asked) = sync_channel(1);
        let (answer, answers) = sync_channel(1);
        let failed = |what: String| (NetworkId(0), LoadError::Device(what));
        let run = move || own(driver, &settings, programs, &asked, &answer);
        let thread = thread::Builder::new().name("cuda".into()).spawn(run).map_err(|e| failed(e.to_string()))?;
        let started = match answers.recv_timeout(START + patience) {
            Ok(Answer::Started(started)) => started.map_err(|e| failed(e.to_string()))?,
            Ok(_) | Err(RecvTimeoutError::Disconnected) => return Err(failed("its thread ended".into())),
            Err(RecvTimeoutError::Timeout) => return Err(failed("the driver does not answer".into())),
        };
        let Started { sizes, tuning, differ } = started;
        networks.iter_mut().zip(sizes).for_each(|(known, sizes)| known.sizes = sizes);
        Ok(Self {
            networks,
            commands: Some(commands),
            answers,
            thread: Some(thread),
            patience,
            tuning,
            differ,
            lost: None,
            outputs: Zeroizing::default(),
        })
    }

    /// Which kernels it takes: given, or measured when it was made.
    pub fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// Kernels that the tuning left out, since they did not have the bits of others: a fault of the card or of this program.
    pub fn differ(&self) -> &[String] {
        &self.differ
    }

    fn ask(&mut self, command: Command) -> Result<Answer, ExecuteError> {
        if let Some(lost) = &self.lost {
            return Err(ExecuteError::Lost(lost.clone()));
        }
        let sent = self.commands.as_ref().is_some_and(|commands| commands.send(command).is_ok());
        let waited = self.patience + MORE;
        let why = match self.answers.recv_timeout(if sent { waited } else { Duration::ZERO }) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Timeout) => format!("the driver did not return within {} s", waited.as_secs()),
            Err(RecvTimeoutError::Disconnected) => "its thread ended".to_owned(),
        };
        self.lost = Some(why.clone());
        Err(ExecuteError::Lost(why))
    }
}

/// The thread that owns the device, until nobody asks it any more.
fn own(
    driver: OpenDriver,
    settings: &CudaSettings,
    programs: Programs,
    asked: &Receiver<Command>,
    answer: &SyncSender<Answer>,
) {
    let open = || {
        let device = Device::open(driver()?, settings.ordinal, settings.limits)?;
        Worker::new(device, settings.images, programs, settings.tuning.clone())
    };
    let mut worker = match open() {
        Ok(worker) => worker,
        Err(error) => return drop(answer.send(Answer::Started(Err(error)))),
    };
    let mut said = answer.send(Answer::Started(Ok(Started {
        sizes: worker.sizes(),
        tuning: worker.tuning.clone(),
        differ: worker.differ.clone(),
    })));
    while said.is_ok() {
        let Ok(command) = asked.recv() else { return };
        said = answer.send(match command {
            Command::Submit(network, sights) => Answer::Submitted(worker.submit(network, &sights)),
            Command::Complete => Answer::Completed(worker.complete()),
        });
    }
}

/// The networks as programs of the device.
fn load(networks: Vec<Planned>) -> Result<(Programs, Vec<Known>), (NetworkId, LoadError)> {
    let mut constants = Constants::default();
    let (mut programs, mut known) = (Vec::new(), Vec::new());
    for (place, Planned { plan, input, precision }) in networks.into_iter().enumerate() {
        let refused = |e| (NetworkId(place), e);
        if precision != Precision::Int8 {
            return Err(refused(LoadError::Unsupported("another precision than int8")));
        }
        let program = Program::new(&plan, &input).map_err(|e| refused(LoadError::Lower(e.to_string())))?;
        let program = DeviceProgram::new(&program, &mut constants).map_err(|e| refused(LoadError::Unsupported(e)))?;
        let (size, shape) = (InputSize { width: input.width, height: input.height }, program.output_shape());
        known.push(Known { size, sizes: vec![1], outputs: shape.channels * shape.height * shape.width });
        programs.push((program, size));
    }
    Ok((Programs { programs, constants }, known))
}

impl Executor for CudaExecutor {
    fn input_size(&self, network: NetworkId) -> InputSize {
        self.networks.get(network.0).map_or(InputSize { width: 0, height: 0 }, |known| known.size)
    }

    fn batching(&self, network: NetworkId) -> Batching {
        let sizes = self.networks.get(network.0).map_or_else(|| vec![1], |known| known.sizes.clone());
        Batching { sizes, in_flight: LANES }
    }

    fn submit(&mut self, network: NetworkId, sights: &[Arc<Sight>]) -> Result<(), ExecuteError> {
        match self.ask(Command::Submit(network, sights.to_vec()))? {
            Answer::Submitted(submitted) => submitted,
            Answer::Started(_) | Answer::Completed(_) => {
                Err(ExecuteError::Device("an answer to another question".into()))
            }
        }
    }

    fn complete(&mut self) -> Result<Outputs<'_>, ExecuteError> {
        match self.ask(Command::Complete)? {
            Answer::Completed(completed) => {
                let (network, outputs) = completed?;
                self.outputs = outputs;
                Outputs::new(&self.outputs, self.networks.get(network.0).map_or(1, |known| known.outputs))
            }
            Answer::Started(_) | Answer::Submitted(_) => {
                Err(ExecuteError::Device("an answer to another question".into()))
            }
        }
    }
}

impl Drop for CudaExecutor {
    fn drop(&mut self) {
        self.commands = None;
        // A driver that does not return keeps its thread; the process ends without it.
        if self.lost.is_none()
            && matches!(self.answers.recv_timeout(self.patience), Err(RecvTimeoutError::Disconnected))
        {
            let _ = self.thread.take().map(JoinHandle::join);
        }
    }
}
