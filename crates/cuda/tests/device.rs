//! A device through its owners, on a driver in plain memory: what it computes, what it refuses, and its loss at every call.

#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::{rc::Rc, time::Duration};

use vultus_cuda::{
    Buffer, Device, Error, Event, Kind, Launch, Library, Limits, Loss, Module, Pinned, Status, Stream, argument,
    devices,
    fake::{Fake, Fault},
};

const LIMITS: Limits = Limits { memory: 1 << 20, patience: Duration::from_millis(20) };
const ONE: Launch = Launch { grid: [1, 1, 1], block: 32, shared: 0, cluster: 1, overlaps: false };
const BYTES: usize = 64;

/// With a kernel that adds a number to every byte.
fn fake() -> Fake {
    Fake::default().kernel("add", &[8, 4, 1], |memory, _, arguments| {
        let address = u64::from_ne_bytes(arguments[0].as_slice().try_into().unwrap());
        let bytes = u32::from_ne_bytes(arguments[1].as_slice().try_into().unwrap());
        for byte in &mut memory.at(address)[..bytes as usize] {
            *byte = byte.wrapping_add(arguments[2][0]);
        }
    })
}

/// What an executor does: opens, loads, takes memory, captures a graph, and runs it; gives what came out.
fn work(fake: &Fake) -> Result<Vec<u8>, Error> {
    let device = Device::open(Box::new(fake.clone()), 0, LIMITS)?;
    let module = Module::new(&device, &[b"80", b"90"])?;
    assert_eq!(module.image(), 1, "the first that the card takes");
    let add = module.function("add", 1000)?;
    let (mut into, from) = (Pinned::new(&device, "images", BYTES)?, Pinned::new(&device, "outputs", BYTES)?);
    let memory = Buffer::wiped(&device, "activations", BYTES)?;
    let (stream, done) = (Stream::new(&device)?, Event::new(&device)?);
    let began = Event::new(&device)?;
    // SAFETY: all of it lives until the stream was waited for, in order; so for all.
    let graph = stream.capture(|| unsafe {
        stream.upload(&memory, &into, BYTES)?;
        let (mut address, mut bytes, mut more) = (memory.address(), BYTES as u32, 3u8);
        add.launch(&stream, &ONE, &mut [argument(&mut address), argument(&mut bytes), argument(&mut more)])?;
        stream.download(&from, &memory, 0, BYTES)
    })?;
    unsafe { into.write() }.copy_from_slice(&std::array::from_fn::<u8, BYTES, _>(|i| i as u8));
    began.record(&stream)?;
    unsafe { graph.launch(&stream) }?;
    done.record(&stream)?;
    let other = Stream::new(&device)?;
    other.wait_for(&done)?;
    other.wait()?;
    done.wait()?;
    assert_eq!(done.since(&began)?, Duration::from_micros(500));
    assert_eq!(device.taken().into_iter().collect::<Vec<_>>(), [("activations", BYTES as u64)]);
    assert_eq!(device.free_memory()?, (1 << 30) - BYTES as u64);
    Ok(unsafe { from.read() }.to_vec())
}

fn expected() -> Vec<u8> {
    (0..BYTES).map(|i| i as u8 + 3).collect()
}

#[test]
fn work_is_done_and_everything_given_back() {
    let fake = fake();
    assert_eq!(work(&fake), Ok(expected()));
    assert_eq!((fake.left(), fake.unwiped()), (vec![], 0), "and what held images was wiped");
}

/// Whatever the call, an error is a value; what lives is given back, unless the device is lost, when nobody asks it for anything more.
#[test]
fn every_call_may_fail() {
    let healthy = fake();
    work(&healthy).unwrap();
    let calls = healthy.calls();
    assert!(calls > 30, "{calls}");
    for at in 0..calls {
        for status in [1, 2, 700, 214, 719, 999, 54_321].map(Status) {
            let fake = fake().fault(at, Fault::Gives(status));
            let lost = matches!(status.kind(), Kind::Lost | Kind::Unknown);
            match work(&fake) {
                // What fails when its owner goes is told to nobody.
                Ok(got) => assert_eq!(got, expected()),
                Err(Error::Lost(Loss::Failed { status: told, .. })) => {
                    assert!(lost && told == status, "{at}: {status:?}");
                    assert_eq!(fake.calls(), at + 1, "a device that is lost is not asked again");
                }
                Err(Error::Start(told)) => assert_eq!(told, status, "{at}"),
                Err(error) => {
                    assert!(!lost, "{at}: {status:?} {error}");
                    assert_eq!((fake.left(), fake.unwiped()), (vec![], 0), "{at}: {status:?} {error}");
                }
            }
        }
    }
}

/// Work that does not end is a loss, after the patience and not before, whatever had been given to the device when it began to hang.
#[test]
fn what_hangs_is_lost() {
    let healthy = fake();
    work(&healthy).unwrap();
    let mut hung = 0;
    for at in 0..healthy.calls() {
        let fake = fake().fault(at, Fault::Hangs);
        let began = std::time::Instant::now();
        match work(&fake) {
            Err(Error::Lost(Loss::Hung { seconds: 0 })) => {
                assert!(began.elapsed() >= LIMITS.patience, "{at}");
                hung += 1;
            }
            // After the last wait only owners wait, and nobody for them.
            Ok(got) => assert_eq!(got, expected(), "{at}"),
            other => panic!("{at}: {other:?}"),
        }
        assert!(began.elapsed() < 20 * LIMITS.patience, "{at}");
    }
    assert!(hung > 20, "{hung}");
}

#[test]
fn a_lost_device_stays_lost() {
    let healthy = fake();
    let device = Device::open(Box::new(healthy.clone()), 0, LIMITS).unwrap();
    let stream = Stream::new(&device).unwrap();
    let first_wait = healthy.calls();
    assert_eq!((stream.wait(), device.lost()), (Ok(()), None));
    drop((stream, device));
    let fake = fake().fault(first_wait, Fault::Gives(Status::ILLEGAL_ADDRESS));
    let device = Device::open(Box::new(fake.clone()), 0, LIMITS).unwrap();
    let stream = Stream::new(&device).unwrap();
    let loss = Loss::Failed { call: "cuStreamQuery", status: Status::ILLEGAL_ADDRESS };
    assert_eq!(stream.wait(), Err(Error::Lost(loss)), "{fake:?}");
    for _ in 0..2 {
        assert_eq!(Buffer::new(&device, "weights", 9).unwrap_err(), Error::Lost(loss));
        assert_eq!(Stream::new(&device).unwrap_err(), Error::Lost(loss));
    }
    assert_eq!(device.lost(), Some(loss));
    drop((stream, device));
    assert_eq!(fake.left(), ["stream", "context"], "the process keeps what a dead driver would hang on");
}

#[test]
fn memory_is_taken_within_the_limit() {
    let open = |room| Device::open(Box::new(fake().room(room)), 0, LIMITS).unwrap();
    let device = open(1 << 30);
    let first = Buffer::new(&device, "weights", (1 << 20) - 100).unwrap();
    let full = Buffer::new(&device, "activations", 101).unwrap_err();
    assert_eq!(full, Error::Full { what: "activations", needs: 1, free: 0 });
    let rest = Buffer::new(&device, "activations", 100).unwrap();
    assert_eq!(device.taken().into_values().sum::<u64>(), 1 << 20);
    drop((first, rest));
    assert_eq!(device.taken().into_values().sum::<u64>(), 0);
    // Others took the device's memory.
    let small = open(600 << 10);
    assert!(matches!(Buffer::new(&small, "weights", 700 << 10), Err(Error::Full { what: "weights", .. })));
    assert!(matches!(Pinned::new(&small, "images", 1 << 20), Err(Error::Pinned { what: "images", needs: 1 })));
    assert!(Buffer::new(&small, "weights", 0).unwrap().bytes() == 1);
}

#[test]
fn what_is_not_there_is_said() {
    let open = |fake: Fake, ordinal| Device::open(Box::new(fake), ordinal, LIMITS).unwrap_err().to_string();
    assert_eq!(open(fake(), 3), "there is no cuda:3, the driver shows 1 device(s)");
    assert_eq!(open(Fake::with_cards(&[]), 0), "there is no cuda:0, the driver shows 0 device(s)");
    let old = Fake::with_cards(&[("Tesla V100", (7, 0)), ("H200", (9, 0))]);
    assert_eq!(open(old.clone(), 0), "cuda:0 (Tesla V100) has compute capability 7.0, expected 8.0 or later");
    assert_eq!(devices(&old).unwrap()[1].name, "H200");
    assert_eq!(
        open(fake().version(12_040), 0),
        "the NVIDIA driver is too old: it knows CUDA 12.4, expected release 580 or later"
    );
    let device = Device::open(Box::new(fake()), 0, LIMITS).unwrap();
    assert!(matches!(Module::new(&device, &[b"80"]), Err(Error::Binary(Status(209)))));
    let module = Module::new(&device, &[b"90"]).unwrap();
    assert!(matches!(module.function("sub", 0), Err(Error::Call { .. })));
    assert!(matches!(module.function("add", 300_000), Err(Error::Call { .. })));
}

#[test]
fn arguments_are_of_the_kernels_sizes_and_copies_fit() {
    let device: Rc<Device> = Device::open(Box::new(fake()), 0, LIMITS).unwrap();
    let add = Module::new(&device, &[b"90"]).unwrap().function("add", 0).unwrap();
    assert_eq!(add.occupancy(256, 0), Ok(8));
    let stream = Stream::new(&device).unwrap();
    let (mut address, mut bytes) = (1u64, 4u64);
    // SAFETY: nothing is launched, and nothing copied.
    let refused = unsafe { add.launch(&stream, &ONE, &mut [argument(&mut address), argument(&mut bytes)]) };
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the kernel add takes arguments of [8, 4, 1] bytes, it was given [8, 8]"
    );
    let (memory, pinned) = (Buffer::new(&device, "a", 8).unwrap(), Pinned::new(&device, "b", 9).unwrap());
    assert_eq!(unsafe { stream.upload(&memory, &pinned, 9) }, Err(Error::Copy { bytes: 9, room: 8 }));
    assert_eq!(unsafe { stream.download(&pinned, &memory, 0, 9) }, Err(Error::Copy { bytes: 9, room: 8 }));
}

/// The machine's own: a driver, or a sentence.
#[test]
fn a_machine_without_a_driver_says_so() {
    match Library::open() {
        Ok(library) => println!("a driver: {:?}", devices(&library)),
        Err(error @ (Error::NoDriver | Error::TooOld(_))) => println!("{error}"),
        Err(other) => panic!("{other}"),
    }
}
