//! Compiles the kernels: machine code for compute capability 9.0 (Hopper, with what it alone has) and 8.x, and PTX that the driver of a later card
//! compiles. With `VULTUS_WITHOUT_CUDA=1` there are none.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Instant,
};

/// The version whose code driver 580 takes.
const VERSION: &str = "release 13.0";
/// Name, and what nvcc is told. The first that a card takes is taken.
const IMAGES: [(&str, &[&str]); 3] = [
    ("net.sm_90a.cubin", &["-DVULTUS_HOPPER", "-gencode=arch=compute_90a,code=sm_90a", "-cubin"]),
    ("net.sm_80.cubin", &["-gencode=arch=compute_80,code=sm_80", "-cubin"]),
    ("net.compute_80.ptx", &["-arch=compute_80", "-ptx"]),
];

fn main() -> Result<(), Box<dyn Error>> {
    for changed in ["build.rs", "net", "device.cuh", "hopper.cuh"] {
        println!("cargo:rerun-if-changed={changed}");
    }
    for variable in ["VULTUS_WITHOUT_CUDA", "VULTUS_NVCC"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    if env::var("VULTUS_WITHOUT_CUDA").is_ok_and(|value| value == "1") {
        fs::write(out.join("net.rs"), "[]")?;
        fs::write(out.join("seconds"), "0")?;
        return Ok(());
    }
    let nvcc = nvcc()?;
    let began = Instant::now();
    let mut running: Vec<(&str, Child)> = Vec::new();
    for (name, how) in IMAGES {
        let mut command = Command::new(&nvcc);
        // Results are to have the CPU's bits: no product and sum is contracted; subnormals, divisions and roots are IEEE's by default.
        command
            .args(["-std=c++17", "-O3", "-fmad=false", "-I."])
            .args(how)
            .arg("net/all.cu")
            .arg("-o")
            .arg(out.join(name));
        running.push((name, command.spawn()?));
    }
    for (name, mut child) in running {
        if !child.wait()?.success() {
            return Err(format!("{} did not compile {name}", nvcc.display()).into());
        }
    }
    let included = IMAGES.map(|(name, _)| format!("include_bytes!({:?}) as &[u8]", out.join(name)));
    fs::write(out.join("net.rs"), format!("[{}]", included.join(", ")))?;
    fs::write(out.join("seconds"), began.elapsed().as_secs().to_string())?;
    Ok(())
}

/// That of `VULTUS_NVCC`, or of the Python packages that set-up installs, or the one on the PATH.
fn nvcc() -> Result<PathBuf, Box<dyn Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("..");
    let packages = fs::read_dir(root.join(".venv/lib")).into_iter().flatten().flatten();
    let installed = packages.map(|python| python.path().join("site-packages/nvidia/cu13/bin/nvcc"));
    let on_path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&on_path).map(|folder| folder.join("nvcc"));
    let named = env::var_os("VULTUS_NVCC").map(PathBuf::from);
    let found = named.into_iter().chain(installed).chain(on_path).find(|path| path.is_file());
    let nvcc = found.ok_or(
        "nvcc 13.0 was not found: scripts/setup.sh installs it; VULTUS_NVCC names one; VULTUS_WITHOUT_CUDA=1 builds without CUDA",
    )?;
    let says = String::from_utf8(Command::new(&nvcc).arg("--version").output()?.stdout)?;
    if !says.contains(VERSION) {
        let last = says.lines().last().unwrap_or_default();
        return Err(format!("{} is {last}, expected {VERSION}; VULTUS_NVCC names another", nvcc.display()).into());
    }
    Ok(nvcc)
}
