//! What each call does.

#![allow(unsafe_code, clippy::expect_used, clippy::panic)] // a test that misuses it fails here

use std::ffi::c_void;

use super::{Fake, Region, State, Work};
use crate::{
    driver::{Attribute, Driver, Handle, Launch, RowMap, TensorMap, WindowMap},
    error::Status,
};

// SAFETY of all: memory is looked up before it is used; arguments are borrowed by the caller.
impl Driver for Fake {
    fn start(&self) -> Result<(), Status> {
        self.call(|state| if state.cards.is_empty() { Err(Status(100)) } else { Ok(()) })
    }

    fn version(&self) -> Result<u32, Status> {
        self.call(|state| Ok(state.version))
    }

    fn count(&self) -> Result<u32, Status> {
        self.call(|state| Ok(state.cards.len() as u32))
    }

    fn name(&self, device: u32) -> Result<String, Status> {
        self.call(|state| Ok(state.cards[device as usize].0.clone()))
    }

    fn uuid(&self, device: u32) -> Result<[u8; 16], Status> {
        self.call(|_| Ok([device as u8; 16]))
    }

    fn attribute(&self, device: u32, attribute: Attribute) -> Result<i32, Status> {
        let of = |state: &mut State| match attribute {
            Attribute::Multiprocessors => state.multiprocessors,
            Attribute::CapabilityMajor => state.cards[device as usize].1.0,
            Attribute::CapabilityMinor => state.cards[device as usize].1.1,
            Attribute::SharedMemory => 232_448,
        };
        self.call(|state| Ok(of(state)))
    }

    unsafe fn retain(&self, _: u32) -> Result<(), Status> {
        self.call(|state| {
            state.objects.insert(usize::MAX, "context");
            Ok(())
        })
    }

    unsafe fn release(&self, _: u32) -> Result<(), Status> {
        self.call(|state| state.end_object(usize::MAX, "context"))
    }

    unsafe fn memory(&self) -> Result<(u64, u64), Status> {
        self.call(|state| {
            let taken = state.memory.taken();
            Ok(((state.room - taken) as u64, state.room as u64))
        })
    }

    unsafe fn allocate(&self, bytes: usize) -> Result<u64, Status> {
        self.call(|state| {
            let taken = state.memory.taken();
            if bytes > state.room - taken {
                return Err(Status::OUT_OF_MEMORY);
            }
            let region = Region::new(bytes);
            let address = region.address();
            state.objects.insert(address as Handle, "memory");
            state.memory.0.insert(address, region);
            Ok(address)
        })
    }

    unsafe fn free(&self, address: u64) -> Result<(), Status> {
        self.call(|state| {
            let region = state.memory.0.remove(&address).expect("memory that lives");
            state.unwiped += region.end().iter().filter(|byte| **byte != 0).count();
            state.end_object(address as Handle, "memory")
        })
    }

    unsafe fn allocate_pinned(&self, bytes: usize) -> Result<*mut u8, Status> {
        self.call(|state| {
            if bytes > state.room {
                return Err(Status::OUT_OF_MEMORY);
            }
            let mut pinned = vec![0xaa; bytes].into_boxed_slice();
            let address = pinned.as_mut_ptr();
            state.objects.insert(address as Handle, "pinned");
            state.pinned.insert(address as usize, pinned);
            Ok(address)
        })
    }

    unsafe fn free_pinned(&self, address: *mut u8) -> Result<(), Status> {
        self.call(|state| {
            let bytes = state.pinned.remove(&(address as usize)).expect("pinned memory that lives");
            state.unwiped += bytes.iter().filter(|byte| **byte != 0).count();
            state.end_object(address as Handle, "pinned")
        })
    }

    unsafe fn fill(&self, address: u64, byte: u8, bytes: usize, stream: Handle) -> Result<(), Status> {
        self.call(|state| state.give(stream, Work::Fill(address, byte, bytes)))
    }

    unsafe fn upload(&self, to: u64, from: *const u8, bytes: usize, stream: Handle) -> Result<(), Status> {
        self.call(|state| state.give(stream, Work::Upload(to, from as usize, bytes)))
    }

    unsafe fn download(&self, to: *mut u8, from: u64, bytes: usize, stream: Handle) -> Result<(), Status> {
        self.call(|state| state.give(stream, Work::Download(to as usize, from, bytes)))
    }

    unsafe fn new_stream(&self) -> Result<Handle, Status> {
        self.call(|state| Ok(state.new_object("stream")))
    }

    unsafe fn end_stream(&self, stream: Handle) -> Result<(), Status> {
        self.call(|state| state.end_object(stream, "stream"))
    }

    unsafe fn query_stream(&self, stream: Handle) -> Result<(), Status> {
        self.call(|state| {
            state.living(stream, "stream");
            state.ready()
        })
    }

    unsafe fn wait_for_event(&self, stream: Handle, event: Handle) -> Result<(), Status> {
        self.call(|state| {
            state.living(stream, "stream");
            state.living(event, "event");
            Ok(())
        })
    }

    unsafe fn new_event(&self) -> Result<Handle, Status> {
        self.call(|state| Ok(state.new_object("event")))
    }

    unsafe fn end_event(&self, event: Handle) -> Result<(), Status> {
        self.call(|state| state.end_object(event, "event"))
    }

    unsafe fn record(&self, event: Handle, stream: Handle) -> Result<(), Status> {
        self.call(|state| {
            state.living(event, "event");
            state.living(stream, "stream");
            state.events.insert(event, state.now_ms);
            Ok(())
        })
    }

    unsafe fn query_event(&self, event: Handle) -> Result<(), Status> {
        self.call(|state| {
            state.living(event, "event");
            state.ready()
        })
    }

    unsafe fn elapsed(&self, from: Handle, to: Handle) -> Result<f32, Status> {
        self.call(|state| {
            state.living(from, "event");
            state.living(to, "event");
            Ok(state.events[&to] - state.events[&from])
        })
    }

    /// Images are the letters of a card's compute capability, as `90`.
    unsafe fn load(&self, image: &[u8]) -> Result<Handle, Status> {
        self.call(|state| {
            assert!(image.as_ptr().addr().is_multiple_of(8) && image.ends_with(&[0]), "aligned, and with a NUL");
            let (major, minor) = state.cards[0].1;
            if !image.starts_with(format!("{major}{minor}\0").as_bytes()) {
                return Err(Status(209));
            }
            Ok(state.new_object("module"))
        })
    }

    unsafe fn unload(&self, module: Handle) -> Result<(), Status> {
        self.call(|state| state.end_object(module, "module"))
    }

    unsafe fn function(&self, module: Handle, name: &str) -> Result<(Handle, Vec<usize>), Status> {
        self.call(|state| {
            state.living(module, "module");
            let (takes, _) = state.kernels.get(name).ok_or(Status::NOT_FOUND)?;
            let takes = takes.clone();
            state.next += 1;
            let function = state.next;
            state.functions.insert(function, (name.to_owned(), module));
            Ok((function, takes))
        })
    }

    unsafe fn allow_shared(&self, _: Handle, bytes: u32) -> Result<(), Status> {
        self.call(|_| if bytes > 232_448 { Err(Status(1)) } else { Ok(()) })
    }

    unsafe fn occupancy(&self, _: Handle, block: u32, _: u32) -> Result<u32, Status> {
        self.call(|_| Ok(2048 / block.max(1)))
    }

    unsafe fn launch(
        &self,
        function: Handle,
        launch: &Launch,
        stream: Handle,
        arguments: &mut [*mut c_void],
    ) -> Result<(), Status> {
        self.call(|state| {
            let (name, module) = state.functions[&function].clone();
            let bytes = |(address, size): (&*mut c_void, &usize)| {
                // SAFETY: the caller compared the sizes.
                unsafe { std::slice::from_raw_parts(address.cast::<u8>(), *size) }.to_vec()
            };
            let arguments = arguments.iter().zip(&state.kernels[&name].0).map(bytes).collect();
            state.give(stream, Work::Launch(name, module, *launch, arguments))
        })
    }

    /// As the emulator reads it: the kind, and the numbers in their order.
    fn window_map(&self, map: &WindowMap) -> Result<TensorMap, Status> {
        let good = map.address.is_multiple_of(16)
            && map.channels.is_multiple_of(16)
            && map.channels >= map.bytes
            && [64, 128].contains(&map.bytes)
            && (1..=1024).contains(&map.pixels)
            && (1..=8).contains(&map.stride)
            && [map.left, map.top, map.right, map.bottom].iter().all(|corner| (-128..128).contains(corner));
        let WindowMap { address, images, height, width, channels, stride, pixels, bytes, .. } = *map;
        let corners = [map.left, map.top, map.right, map.bottom].map(|corner| corner as u64);
        let [left, top, right, bottom] = corners;
        let numbers =
            [1, address, images, height, width, channels, left, top, right, bottom, stride, pixels, bytes, 0, 0, 0];
        self.call(|_| if good { Ok(TensorMap(numbers)) } else { Err(Status(1)) })
    }

    fn row_map(&self, map: &RowMap) -> Result<TensorMap, Status> {
        let good = map.address.is_multiple_of(16)
            && map.row_bytes.is_multiple_of(16)
            && [64, 128].contains(&map.bytes)
            && (1..=256).contains(&map.box_rows);
        let RowMap { address, rows, row_bytes, box_rows, bytes } = *map;
        let mut numbers = [0; 16];
        numbers[..6].copy_from_slice(&[2, address, rows, row_bytes, box_rows, bytes]);
        self.call(|_| if good { Ok(TensorMap(numbers)) } else { Err(Status(1)) })
    }

    unsafe fn begin_capture(&self, stream: Handle) -> Result<(), Status> {
        self.call(|state| {
            state.living(stream, "stream");
            assert!(state.capture.is_none(), "one capture at a time");
            state.capture = Some((stream, vec![]));
            Ok(())
        })
    }

    unsafe fn end_capture(&self, stream: Handle) -> Result<Handle, Status> {
        self.call(|state| {
            let (captured, works) = state.capture.take().expect("a capture");
            assert_eq!(captured, stream);
            let graph = state.new_object("graph");
            state.graphs.insert(graph, works);
            Ok(graph)
        })
    }

    unsafe fn launch_graph(&self, graph: Handle, stream: Handle) -> Result<(), Status> {
        self.call(|state| {
            state.living(graph, "graph");
            state.living(stream, "stream");
            state.graphs[&graph].clone().into_iter().for_each(|work| state.does(work));
            Ok(())
        })
    }

    unsafe fn end_graph(&self, graph: Handle) -> Result<(), Status> {
        self.call(|state| state.end_object(graph, "graph"))
    }
}
