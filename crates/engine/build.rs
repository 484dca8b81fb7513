//! Compiles the part of the ONNX format that is read, without protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    const PROTO: &str = "../../proto";
    println!("cargo:rerun-if-changed={PROTO}/onnx");
    // Tensors are then slices of the file that was read, not copies.
    prost_build::Config::new().bytes(["."]).compile_fds(protox::compile(["onnx/onnx.proto"], [PROTO])?)?;
    Ok(())
}
