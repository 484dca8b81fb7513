//! A driver in plain memory, whose kernels are closures. It fails where it is told to, and knows what was not given back.

#![allow(unsafe_code, clippy::expect_used, clippy::panic)] // a test that misuses it fails here

mod calls;

use std::{cell::RefCell, collections::BTreeMap, fmt, rc::Rc};

use super::{Handle, Launch};
use crate::error::{Kind, Status};

/// What a kernel does: with the device's memory by address, and the bytes of its arguments.
type Kernel = Rc<dyn Fn(&mut Memory, &Launch, &[Vec<u8>])>;

/// What goes wrong at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It gives that status; one that a context does not survive comes back from every later call.
    Gives(Status),
    /// From there on no work ends.
    Hangs,
}

/// A device's memory. Addresses are true ones, so that kernels which are compiled for the machine can run on it.
#[derive(Debug, Default)]
pub struct Memory(BTreeMap<u64, Region>);

/// What was allocated, with guards on both sides that nobody may write to.
#[derive(Debug)]
struct Region {
    words: Vec<u8>,
    bytes: usize,
}

impl Region {
    const ALIGNMENT: usize = 256;
    const GUARD: u8 = 0x5a;

    fn new(bytes: usize) -> Self {
        let mut region = Self { words: vec![Self::GUARD; bytes + 3 * Self::ALIGNMENT], bytes };
        region.bytes_mut().fill(0xaa);
        region
    }

    fn start(&self) -> usize {
        Self::ALIGNMENT + self.words.as_ptr().addr().wrapping_neg() % Self::ALIGNMENT
    }

    fn address(&self) -> u64 {
        (self.words.as_ptr().addr() + self.start()) as u64
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let start = self.start();
        &mut self.words[start..][..self.bytes]
    }

    /// Its bytes, once nobody wrote beyond them.
    fn end(&self) -> &[u8] {
        let (before, rest) = self.words.split_at(self.start());
        let (bytes, after) = rest.split_at(self.bytes);
        assert!(before.iter().chain(after).all(|byte| *byte == Self::GUARD), "written beyond {} bytes", self.bytes);
        bytes
    }
}

impl Memory {
    /// From an address on, to the end of what was allocated there.
    ///
    /// # Panics
    /// Where nothing was.
    pub fn at(&mut self, address: u64) -> &mut [u8] {
        let (start, region) = self.0.range_mut(..=address).next_back().expect("an address of the device");
        let offset = (address - start) as usize;
        assert!(offset < region.bytes, "an address that is no longer, or never was, of the device");
        &mut region.bytes_mut()[offset..]
    }

    fn taken(&self) -> usize {
        self.0.values().map(|region| region.bytes).sum()
    }
}

#[derive(Clone)]
enum Work {
    Fill(u64, u8, usize),
    Upload(u64, usize, usize),
    Download(usize, u64, usize),
    /// A kernel of a module.
    Launch(String, Handle, Launch, Vec<Vec<u8>>),
}

struct State {
    version: u32,
    cards: Vec<(String, (i32, i32))>,
    multiprocessors: i32,
    room: usize,
    kernels: BTreeMap<String, (Vec<usize>, Kernel)>,
    /// Milliseconds that each kernel takes, of those for which it was said; and how many have gone by.
    takes_ms: BTreeMap<String, f32>,
    now_ms: f32,
    events: BTreeMap<Handle, f32>,
    calls: usize,
    fault: Option<(usize, Fault)>,
    dead: Option<Status>,
    hangs: bool,
    memory: Memory,
    pinned: BTreeMap<usize, Box<[u8]>>,
    /// What lives, and of which kind it is.
    objects: BTreeMap<Handle, &'static str>,
    next: Handle,
    /// Their names and modules.
    functions: BTreeMap<Handle, (String, Handle)>,
    capture: Option<(Handle, Vec<Work>)>,
    graphs: BTreeMap<Handle, Vec<Work>>,
    /// Bytes that were freed without being zero.
    unwiped: usize,
}

/// The driver; clones are of one state, for who looks at it from outside.
#[derive(Clone)]
pub struct Fake(Rc<RefCell<State>>);

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.borrow();
        write!(f, "Fake({} calls, {:?})", state.calls, state.objects)
    }
}

impl Default for Fake {
    fn default() -> Self {
        Self::with_cards(&[("Fake H200", (9, 0))])
    }
}

impl Fake {
    /// With cards of those names and compute capabilities, of a gibibyte each.
    pub fn with_cards(cards: &[(&str, (i32, i32))]) -> Self {
        Self(Rc::new(RefCell::new(State {
            version: 13_000,
            cards: cards.iter().map(|(name, capability)| ((*name).to_owned(), *capability)).collect(),
            multiprocessors: 132,
            room: 1 << 30,
            kernels: BTreeMap::new(),
            takes_ms: BTreeMap::new(),
            now_ms: 0.0,
            events: BTreeMap::new(),
            calls: 0,
            fault: None,
            dead: None,
            hangs: false,
            memory: Memory::default(),
            pinned: BTreeMap::new(),
            objects: BTreeMap::new(),
            next: 1,
            functions: BTreeMap::new(),
            capture: None,
            graphs: BTreeMap::new(),
            unwiped: 0,
        })))
    }

    /// Of that version.
    #[must_use]
    pub fn version(self, version: u32) -> Self {
        self.0.borrow_mut().version = version;
        self
    }

    /// With so many on each card.
    #[must_use]
    pub fn multiprocessors(self, count: i32) -> Self {
        self.0.borrow_mut().multiprocessors = count;
        self
    }

    /// With so much memory.
    #[must_use]
    pub fn room(self, bytes: usize) -> Self {
        self.0.borrow_mut().room = bytes;
        self
    }

    /// With a kernel that takes arguments of so many bytes.
    #[must_use]
    pub fn kernel(
        self,
        name: &str,
        takes: &[usize],
        does: impl Fn(&mut Memory, &Launch, &[Vec<u8>]) + 'static,
    ) -> Self {
        self.0.borrow_mut().kernels.insert(name.to_owned(), (takes.to_vec(), Rc::new(does)));
        self
    }

    /// The kernel takes so long; others take half a millisecond.
    #[must_use]
    pub fn takes_ms(self, name: &str, ms: f32) -> Self {
        self.0.borrow_mut().takes_ms.insert(name.to_owned(), ms);
        self
    }

    /// The call of that number, counted from 0, goes wrong.
    #[must_use]
    pub fn fault(self, at: usize, fault: Fault) -> Self {
        self.0.borrow_mut().fault = Some((at, fault));
        self
    }

    /// How often it was called.
    pub fn calls(&self) -> usize {
        self.0.borrow().calls
    }

    /// What was not given back.
    pub fn left(&self) -> Vec<&'static str> {
        self.0.borrow().objects.values().copied().collect()
    }

    /// Bytes of freed memory, of the device and the machine, that were not zero.
    pub fn unwiped(&self) -> usize {
        self.0.borrow().unwiped
    }

    fn call<T>(&self, of: impl FnOnce(&mut State) -> Result<T, Status>) -> Result<T, Status> {
        let mut state = self.0.borrow_mut();
        let now = state.calls;
        state.calls += 1;
        match state.fault {
            Some((at, Fault::Gives(status))) if at == now => {
                if matches!(status.kind(), Kind::Lost | Kind::Unknown) {
                    state.dead = Some(status);
                }
                return Err(status);
            }
            Some((at, Fault::Hangs)) if at == now => state.hangs = true,
            _ => {}
        }
        match state.dead {
            Some(status) => Err(status),
            None => of(&mut state),
        }
    }
}

impl State {
    fn new_object(&mut self, kind: &'static str) -> Handle {
        self.next += 1;
        self.objects.insert(self.next, kind);
        self.next
    }

    fn end_object(&mut self, handle: Handle, kind: &'static str) -> Result<(), Status> {
        assert_eq!(self.objects.remove(&handle), Some(kind), "what goes was there");
        Ok(())
    }

    fn living(&self, handle: Handle, kind: &'static str) {
        assert!(handle == 0 && kind == "stream" || self.objects.get(&handle) == Some(&kind), "a {kind} that lives");
    }

    fn give(&mut self, stream: Handle, work: Work) -> Result<(), Status> {
        self.living(stream, "stream");
        match &mut self.capture {
            Some((captured, works)) if *captured == stream => works.push(work),
            _ => self.does(work),
        }
        Ok(())
    }

    fn does(&mut self, work: Work) {
        if self.hangs {
            return;
        }
        match work {
            Work::Fill(to, byte, bytes) => self.memory.at(to)[..bytes].fill(byte),
            Work::Upload(to, from, bytes) => {
                let from = &self.pinned.get(&from).expect("pinned memory that lives")[..bytes];
                self.memory.at(to)[..bytes].copy_from_slice(from);
            }
            Work::Download(to, from, bytes) => {
                let to = self.pinned.get_mut(&to).expect("pinned memory that lives");
                to[..bytes].copy_from_slice(&self.memory.at(from)[..bytes]);
            }
            Work::Launch(name, module, launch, arguments) => {
                self.living(module, "module");
                self.now_ms += self.takes_ms.get(&name).copied().unwrap_or(0.5);
                let does = Rc::clone(&self.kernels[&name].1);
                does(&mut self.memory, &launch, &arguments);
            }
        }
    }

    fn ready(&self) -> Result<(), Status> {
        if self.hangs { Err(Status::NOT_READY) } else { Ok(()) }
    }
}
