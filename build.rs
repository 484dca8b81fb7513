//! Compiles the contract in `proto/`, and the part of the ONNX format that is read, without protoc.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const CONTRACT: [&str; 4] =
    ["vultus/v1/common.proto", "vultus/v1/matching.proto", "vultus/v1/gallery.proto", "vultus/v1/review.proto"];
/// What errors carry beside their status, under the name that every client knows it by: reflection serves it.
const DETAILS: &str = "google/rpc/error_details.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(CONTRACT, ["proto"])?;
    let served = protox::compile(CONTRACT.into_iter().chain([DETAILS]), ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("vultus.bin"), served.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .codec_path("crate::rpc::codec::Buffered")
        .skip_debug(IMAGE_BEARERS)
        .compile_fds(descriptors)?;
    // Tensors are then slices of the file that was read, not copies.
    tonic_prost_build::configure().bytes(".").compile_fds(protox::compile(["onnx/onnx.proto"], ["proto"])?)?;
    Ok(())
}

/// Messages that hold image bytes or a receipt: their `Debug` is written by hand, so that no log can show them.
const IMAGE_BEARERS: [&str; 5] = [
    "vultus.v1.FaceImage",
    "vultus.v1.FaceImage.content",
    "vultus.v1.RawImage",
    "vultus.v1.IdentifyRequest",
    "vultus.v1.VerifyResponse",
];
