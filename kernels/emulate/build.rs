//! Compiles the kernels for the CPU.

fn main() {
    println!("cargo:rerun-if-changed=.");
    println!("cargo:rerun-if-changed=../net");
    println!("cargo:rerun-if-changed=../device.cuh");
    println!("cargo:rerun-if-changed=../hopper.cuh");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .file("kernels.cpp")
        .include("..")
        .define("VULTUS_EMULATED", None)
        .flag("-ffp-contract=off")
        .opt_level(3)
        // longjmp between stacks is what fibers do; and pragmas are nvcc's.
        .flag("-U_FORTIFY_SOURCE")
        .flag("-Wno-unknown-pragmas")
        .flag("-Wno-unused-parameter")
        .compile("vultus_emulated_kernels");
}
