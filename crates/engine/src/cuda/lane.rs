//! A stream of batches: its memory on the device, its pinned memory, and a graph for each network and number of images.

#![allow(unsafe_code)]

use std::{collections::BTreeMap, rc::Rc};

use vultus_cuda::{Buffer, Device, Error, Event, Function, Graph, Pinned, Stream};
use zeroize::{Zeroize, Zeroizing};

use super::{
    place::{Card, Run},
    program::DeviceProgram,
};
use crate::executor::{ExecuteError, NetworkId};

/// A network with the numbers of images that it runs, ascending.
#[derive(Debug)]
pub struct Sized {
    pub program: DeviceProgram,
    pub sizes: Vec<usize>,
}

impl Sized {
    fn most(&self) -> usize {
        self.sizes.last().copied().unwrap_or(1)
    }
}

/// Bytes that a lane takes for the networks: on the device, and its scratch's parts of sums and tickets.
pub fn needs(networks: &[Sized], card: &Card<'_>) -> (usize, usize, usize) {
    networks.iter().fold((0, 0, 0), |(tensors, partial, tickets), network| {
        let of_sizes = network.sizes.iter().map(|&images| network.program.scratch(images, card));
        let scratch = of_sizes.fold((partial, tickets), |most, of| (most.0.max(of.0), most.1.max(of.1)));
        (tensors.max(network.program.bytes(network.most())), scratch.0, scratch.1)
    })
}

/// What an error of the device is to who asked for a batch.
pub fn failed(error: Error) -> ExecuteError {
    match error {
        Error::Lost(loss) => ExecuteError::Lost(loss.to_string()),
        other => ExecuteError::Device(other.to_string()),
    }
}

/// A batch under way.
#[derive(Debug, Clone, Copy)]
struct Begun {
    network: NetworkId,
    images: usize,
}

/// One batch at a time. Fields are dropped in their order: what names memory before it, and all of it once the stream is at rest.
#[derive(Debug)]
pub struct Lane {
    /// Of each network, for each of its sizes.
    graphs: Vec<Vec<Graph>>,
    done: Event,
    stream: Stream,
    _tensors: Buffer,
    _partial: Buffer,
    _tickets: Buffer,
    pixels: Pinned,
    outputs: Pinned,
    /// Bytes of pinned pixels that are not zero.
    held: usize,
    begun: Option<Begun>,
}

impl Lane {
    pub fn new(
        device: &Rc<Device>,
        networks: &[Sized],
        functions: &BTreeMap<&'static str, Function>,
        constants: &Buffer,
        card: &Card<'_>,
    ) -> Result<Self, Error> {
        let (tensors, partial, tickets) = needs(networks, card);
        let most = |bytes: fn(&DeviceProgram) -> usize| {
            networks.iter().map(|network| network.most() * bytes(&network.program)).max().unwrap_or(0)
        };
        let pixels = Pinned::new(device, "images", most(DeviceProgram::input_bytes))?;
        let outputs = Pinned::new(device, "outputs", most(|program| program.output().bytes()))?;
        let tensors = Buffer::wiped(device, "activations", tensors)?;
        let partial = Buffer::wiped(device, "sums", partial)?;
        let mut tickets = Buffer::new(device, "tickets", tickets * size_of::<i32>())?;
        tickets.clear()?;
        let (stream, done) = (Stream::new(device)?, Event::new(device)?);
        let run = Run {
            device,
            stream: &stream,
            functions,
            card: *card,
            partial: partial.address(),
            tickets: tickets.address(),
        };
        let graph = |program: &DeviceProgram, images: usize| {
            let (bytes, given) = (images * program.input_bytes(), images * program.output().bytes());
            // SAFETY: the lane keeps what the graph names until the graph is gone, and touches pinned memory only while nothing is under way.
            stream.capture(|| unsafe {
                stream.upload(&tensors, &pixels, bytes)?;
                program.launch(&program.addresses(images, constants.address(), tensors.address()), &run)?;
                stream.download(&outputs, &tensors, program.output_at(images), given)
            })
        };
        let of_network = |network: &Sized| {
            network.sizes.iter().map(|&images| graph(&network.program, images)).collect::<Result<Vec<_>, _>>()
        };
        let graphs = networks.iter().map(of_network).collect::<Result<_, _>>()?;
        Ok(Self {
            graphs,
            done,
            stream,
            _tensors: tensors,
            _partial: partial,
            _tickets: tickets,
            pixels,
            outputs,
            held: 0,
            begun: None,
        })
    }

    pub fn is_busy(&self) -> bool {
        self.begun.is_some()
    }

    /// Begins a batch of so many images, no more than the network's greatest size; `fill` writes the pixels of each.
    pub fn begin(
        &mut self,
        network: NetworkId,
        sized: &Sized,
        images: usize,
        mut fill: impl FnMut(usize, &mut [u8]) -> Result<(), ExecuteError>,
    ) -> Result<(), ExecuteError> {
        let at = sized.sizes.iter().position(|size| *size >= images).unwrap_or(sized.sizes.len() - 1);
        // SAFETY: the lane has no batch: its copies are done.
        let pixels = unsafe { self.pixels.write() };
        for (place, to) in pixels.chunks_exact_mut(sized.program.input_bytes()).take(images).enumerate() {
            fill(place, to)?;
        }
        // Nobody's face is seen twice.
        let (written, read) = (images * sized.program.input_bytes(), sized.sizes[at] * sized.program.input_bytes());
        pixels[written..self.held.max(read)].zeroize();
        self.held = written;
        // SAFETY: the lane has all that it names, and gives it to nobody until the stream is at rest.
        unsafe { self.graphs[network.0][at].launch(&self.stream) }.map_err(failed)?;
        if let Err(error) = self.done.record(&self.stream) {
            // The batch is not begun: what is under way is for nobody.
            return Err(failed(self.stream.wait().err().unwrap_or(error)));
        }
        self.begun = Some(Begun { network, images });
        Ok(())
    }

    /// Waits for the batch: which network's it was, and its outputs, each image's in the order channel, row, column.
    pub fn end(&mut self, networks: &[Sized]) -> Result<(NetworkId, Zeroizing<Vec<f32>>), Error> {
        let Some(Begun { network, images }) = self.begun.take() else {
            return Ok((NetworkId(0), Zeroizing::default()));
        };
        self.done.wait()?;
        let output = networks[network.0].program.output();
        let (shape, each) = (output.shape(), output.elements());
        let mut values = Zeroizing::new(Vec::with_capacity(images * shape.channels * shape.height * shape.width));
        // SAFETY: the copy is done, and the driver gives memory that is aligned for any number.
        let (_, given, _) = unsafe { self.outputs.write().align_to_mut::<f32>() };
        for image in given.chunks_exact(each).take(images) {
            for channel in 0..shape.channels {
                values.extend(image.iter().skip(channel).step_by(output.pitch));
            }
        }
        given.zeroize();
        Ok((network, values))
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Of a lost device nothing is freed that it may use.
        let _ = self.stream.wait();
    }
}
