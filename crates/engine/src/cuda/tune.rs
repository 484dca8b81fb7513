//! Measures on a card which kernel is the fastest for each convolution.

#![allow(unsafe_code)]

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use vultus_cuda::{Buffer, Device, Error, Event, Function, Pinned, Stream};

use super::{
    arguments,
    lane::Sized,
    ops::{Convolve, DIGEST, Method},
    place::{Card, Here, Run},
    tuning::Tuning,
};

/// How often a method runs between two events.
const RUNS: u32 = 10;
/// How often that is measured; the least counts.
const ROUNDS: u32 = 3;

/// What lies where nothing was stored.
const FORGOTTEN: u8 = 0x5a;

/// Measures all methods for all convolutions of the networks, for each of their sizes. What a method stores must have the bits of what the first
/// one stores, which any card has; methods that differ are left out, and their names are given.
pub fn measure(
    device: &Rc<Device>,
    networks: &[Sized],
    functions: &BTreeMap<&'static str, Function>,
    constants: &Buffer,
    card: &Card<'_>,
) -> Result<(Tuning, Vec<String>), Error> {
    let sized = || networks.iter().flat_map(|network| network.sizes.iter().map(move |&size| (&network.program, size)));
    let scratch = sized().flat_map(|(program, size)| {
        program.convolutions().flat_map(move |c| c.methods(size, card).into_iter().map(move |m| c.scratch(m, size)))
    });
    let (partial, tickets) = scratch.fold((0, 0), |most, of| (most.0.max(of.0), most.1.max(of.1)));
    let tensors = sized().map(|(program, size)| program.bytes(size)).max().unwrap_or(0);
    let mut pixels =
        Pinned::new(device, "noise", sized().map(|(program, size)| size * program.input_bytes()).max().unwrap_or(0))?;
    // SAFETY: no copy is under way yet.
    unsafe { pixels.write() }.iter_mut().fold(1u64, |state, pixel| {
        *pixel = (state >> 33) as u8;
        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
    });
    let mut bench = Bench {
        pixels,
        stream: Stream::new(device)?,
        events: [Event::new(device)?, Event::new(device)?],
        tensors: Buffer::wiped(device, "activations", tensors)?,
        partial: Buffer::wiped(device, "sums", partial)?,
        tickets: Buffer::new(device, "tickets", tickets * size_of::<i32>())?,
        digest: Buffer::new(device, "digest", size_of::<u64>())?,
        read: Pinned::new(device, "digest", size_of::<u64>())?,
        device,
        functions,
        card: *card,
    };
    bench.tickets.clear()?;
    let (mut tuning, mut differ) = (Tuning::default(), Vec::new());
    for (program, size) in sized() {
        // Every pixel of every image is another: a kernel that mixes them up is to be seen.
        let pixels = size * program.input_bytes();
        // SAFETY: it is waited for after the first step; the pixels stay as they are.
        unsafe { bench.stream.upload(&bench.tensors, &bench.pixels, pixels) }?;
        let addresses = program.addresses(size, constants.address(), bench.tensors.address());
        for (node, here) in program.steps(&addresses) {
            node.launch(&here, &bench.run())?;
            bench.stream.wait()?;
            let Some(convolution) = node.convolution() else { continue };
            let key = convolution.key(size);
            if tuning.get(&key).is_none() {
                let best = bench.best(convolution, size, &here, &mut differ)?;
                tuning.set(key, best.name());
            }
        }
    }
    Ok((tuning, differ))
}

/// What measurements need.
struct Bench<'a> {
    pixels: Pinned,
    stream: Stream,
    events: [Event; 2],
    tensors: Buffer,
    partial: Buffer,
    tickets: Buffer,
    digest: Buffer,
    read: Pinned,
    device: &'a Rc<Device>,
    functions: &'a BTreeMap<&'static str, Function>,
    card: Card<'a>,
}

impl Bench<'_> {
    fn run(&self) -> Run<'_> {
        Run {
            device: self.device,
            stream: &self.stream,
            functions: self.functions,
            card: self.card,
            partial: self.partial.address(),
            tickets: self.tickets.address(),
        }
    }

    /// The fastest of those that store the same as the one that any card has.
    fn best(&mut self, c: &Convolve, size: usize, here: &Here<'_>, differ: &mut Vec<String>) -> Result<Method, Error> {
        let mut methods = c.methods(size, &self.card);
        // The smallest tile, alone.
        let first = methods.iter().rposition(|method| matches!(method, Method::Tile { splits: 1, .. })).unwrap_or(0);
        methods.swap(0, first);
        let mut expected = None;
        let mut best: Option<(Duration, Method)> = None;
        for method in methods {
            self.forget(here)?;
            c.launch_by(method, here, &self.run())?;
            let stored = self.digest_of(here)?;
            if *expected.get_or_insert(stored) != stored {
                differ.push(format!("{} of {}", method.name(), c.key(size)));
                continue;
            }
            let took = self.time(|run| c.launch_by(method, here, run))?;
            if best.is_none_or(|(least, _)| took < least) {
                best = Some((took, method));
            }
        }
        Ok(best.map_or_else(|| c.choose(size, &self.card), |(_, method)| method))
    }

    /// The least time of a run.
    fn time(&self, launch: impl Fn(&Run<'_>) -> Result<(), Error>) -> Result<Duration, Error> {
        let [began, ended] = &self.events;
        let graph = self.stream.capture(|| (0..RUNS).try_for_each(|_| launch(&self.run())))?;
        let mut least = Duration::MAX;
        for _ in 0..ROUNDS {
            began.record(&self.stream)?;
            // SAFETY: what the graph names is kept until it was waited for.
            unsafe { graph.launch(&self.stream) }?;
            ended.record(&self.stream)?;
            self.stream.wait()?;
            least = least.min(ended.since(began)?);
        }
        Ok(least / RUNS)
    }

    /// Writes over what the step stored: a method that stores nothing is to be seen.
    fn forget(&self, here: &Here<'_>) -> Result<(), Error> {
        here.places().try_for_each(|(data, bytes)| {
            let at = (data - self.tensors.address()) as usize;
            // SAFETY: the memory is kept until the stream is at rest.
            unsafe { self.stream.fill(&self.tensors, at, FORGOTTEN, bytes) }
        })
    }

    /// Of everything that the step stores.
    fn digest_of(&mut self, here: &Here<'_>) -> Result<u64, Error> {
        self.stream.wait()?;
        self.digest.clear()?;
        let sum = self.digest.address();
        for (data, bytes) in here.places() {
            let argument = arguments::Digest { data, words: (bytes / size_of::<u32>()) as u64, sum };
            self.run().launch("digest", DIGEST, argument)?;
        }
        // SAFETY: it is waited for before either goes.
        unsafe { self.stream.download(&self.read, &self.digest, 0, size_of::<u64>()) }?;
        self.stream.wait()?;
        // SAFETY: the copy is done.
        let bytes = unsafe { self.read.read() };
        Ok(u64::from_ne_bytes(std::array::from_fn(|i| bytes[i])))
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        // Of a lost device nothing is freed that it may use.
        let _ = self.stream.wait();
    }
}
