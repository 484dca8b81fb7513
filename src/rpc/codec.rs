//! Messages from bytes and to bytes, with buffers of the size that they have here.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// What a request is gathered in, bytes. The transport reserves its length once more when it knows it, so this is twice a face crop's:
/// a smaller one would be copied while it grows, a larger image's still is. It comes on top of the bytes that the door counts: 18 MiB
/// for as many requests as may be answered by default, most of it never touched.
const REQUEST_BUFFER_BYTES: usize = 48 << 10;
/// What an answer is written to: most are a few hundred bytes.
const ANSWER_BUFFER_BYTES: usize = 1 << 10;
/// Messages of a stream leave together up to so many bytes.
const TOGETHER_BYTES: usize = 32 << 10;

/// Protocol Buffers, for the services that are generated (`build.rs` names it). Their clients, which tests use, have the buffers the
/// other way round.
#[derive(Debug)]
pub struct Buffered<Encode, Decode>(PhantomData<(Encode, Decode)>);

impl<Encode, Decode> Default for Buffered<Encode, Decode> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Encode, Decode> Codec for Buffered<Encode, Decode>
where
    Encode: Message + Send + 'static,
    Decode: Message + Default + Send + 'static,
{
    type Encode = Encode;
    type Decode = Decode;
    type Encoder = ProstEncoder<Encode>;
    type Decoder = ProstDecoder<Decode>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(ANSWER_BUFFER_BYTES, TOGETHER_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(REQUEST_BUFFER_BYTES, TOGETHER_BYTES))
    }
}
