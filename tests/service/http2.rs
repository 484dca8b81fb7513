//! A client that speaks HTTP/2 frame by frame, to see what the transport announces and how it ends what it does not tolerate.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;

pub const END_HEADERS: u8 = 4;
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame, as it came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub struct Wire(TcpStream);

impl Wire {
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(stream)
    }

    /// With the preface and an empty SETTINGS frame.
    pub fn greeted(address: &str) -> Self {
        let mut wire = Self::connect(address);
        wire.send(PREFACE);
        wire.send(&frame(SETTINGS, 0, 0, &[]));
        wire
    }

    /// The server may have closed already: what it said before is still there to be read.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// Nothing more comes from this side. Where bytes were left unread, an end of the whole connection could overtake what was sent.
    pub fn done(&mut self) {
        self.0.shutdown(Shutdown::Write).unwrap();
    }

    /// The next frame; `None` once the connection is closed.
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.read(&mut head)?;
        let [a, b, c, kind, flags, s0, s1, s2, s3] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.read(&mut payload)?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff, payload })
    }

    /// The next frame of a kind; `None` if the connection is closed before one comes.
    pub fn next_of(&mut self, kind: u8) -> Option<Frame> {
        std::iter::from_fn(|| self.next()).find(|frame| frame.kind == kind)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.0.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => None,
            Err(error) => panic!("{error}: the server neither answered nor closed the connection"),
        }
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A gRPC request's headers, in HPACK's plainest form: every field written out, none of it indexed.
pub fn grpc_headers(path: &str, client: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86]; // :method: POST, :scheme: http
    let fields =
        [(":path", path), (":authority", "localhost"), ("content-type", "application/grpc"), ("te", "trailers")];
    for (name, value) in fields.into_iter().chain([("vultus-client", client)]) {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text"));
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A message as gRPC frames it, and how long it says that it is.
pub fn grpc_message(stated: usize, bytes: &[u8]) -> Vec<u8> {
    [&[0], &(stated as u32).to_be_bytes()[..], bytes].concat()
}

/// The values of a SETTINGS frame by their number.
pub fn setting(settings: &Frame, number: u16) -> Option<u32> {
    settings.payload.chunks_exact(6).find_map(|entry| {
        let (id, value) = entry.split_at(2);
        (u16::from_be_bytes([id[0], id[1]]) == number)
            .then(|| u32::from_be_bytes([value[0], value[1], value[2], value[3]]))
    })
}
