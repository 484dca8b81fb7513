//! What nvcc makes of the kernels, held against the table that is committed: registers, shared memory, instructions of the tensor cores, and spills, of
//! which there are none. `VULTUS_WRITE=1` writes the table anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const TABLE: &str = "net/machine_code.txt";
const CARDS: [&str; 2] = ["sm_90a", "sm_80"];

/// Of a kernel.
#[derive(Debug, Default)]
struct Code {
    registers: u32,
    shared: u32,
    /// Bytes on the stack, and instructions that read or write them.
    stack: u32,
    spills: usize,
    /// Products of whole numbers on tensor cores: of a warp, and of four.
    warp: usize,
    group: usize,
}

#[test]
fn machine_code_is_that_of_the_table() {
    if vultus_kernels::NET.is_empty() {
        println!("skipped: built without CUDA");
        return;
    }
    let bytes: Vec<usize> = vultus_kernels::NET.iter().map(|image| image.len()).collect();
    println!("kernels: {} s of nvcc, images of {bytes:?} bytes", vultus_kernels::BUILD_SECONDS);
    let Some(tools) = tools() else {
        println!("skipped: cuobjdump of the Python packages is not there");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut table = String::from(
        "# kernel card: registers, static shared memory, tensor core instructions of a warp and of a warp group\n",
    );
    for (card, image) in CARDS.iter().zip(vultus_kernels::NET) {
        let file = folder.path().join("net.cubin");
        fs::write(&file, image).unwrap();
        for (kernel, code) in inspect(&tools, &file) {
            assert_eq!((code.stack, code.spills), (0, 0), "{kernel} spills on {card}");
            let Code { registers, shared, warp, group, .. } = code;
            table += &format!("{kernel} {card}: {registers} {shared} {warp} {group}\n");
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(TABLE);
    if env::var("VULTUS_WRITE").is_ok_and(|value| value == "1") {
        fs::write(&path, &table).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let differ: Vec<_> = table.lines().filter(|line| !committed.lines().any(|known| known == *line)).collect();
    assert!(table == committed, "VULTUS_WRITE=1 writes {TABLE} anew, if this is meant: {differ:#?}");
}

/// The folder of cuobjdump and nvdisasm.
fn tools() -> Option<PathBuf> {
    let packages = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/lib")).ok()?;
    let folders = packages.flatten().map(|python| python.path().join("site-packages/nvidia/cu13/bin"));
    folders.into_iter().find(|folder| folder.join("cuobjdump").is_file())
}

fn inspect(tools: &Path, cubin: &Path) -> BTreeMap<String, Code> {
    let path =
        env::join_paths([tools.to_owned()].into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap()))).unwrap();
    let dump = |how: &str| {
        let output = Command::new(tools.join("cuobjdump")).env("PATH", &path).arg(how).arg(cubin).output().unwrap();
        assert!(output.status.success(), "cuobjdump {how}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let mut found: BTreeMap<String, Code> = BTreeMap::new();
    let mut current = String::new();
    for line in dump("-res-usage").lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("Function ") {
            current = name.trim_end_matches(':').to_owned();
        } else if line.starts_with("REG:") {
            let number = |key: &str| -> u32 {
                let value = line.split_whitespace().find_map(|word| word.strip_prefix(key)).expect(key);
                value.parse().unwrap()
            };
            let (registers, shared, stack) = (number("REG:"), number("SHARED:"), number("STACK:") + number("LOCAL:"));
            found.insert(current.clone(), Code { registers, shared, stack, ..Code::default() });
        }
    }
    for line in dump("-sass").lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("Function : ") {
            current = name.to_owned();
            continue;
        }
        let Some(code) = found.get_mut(&current) else { continue };
        let holds = |words: &[&str]| line.split_whitespace().any(|word| words.iter().any(|w| word.starts_with(w)));
        code.spills += usize::from(holds(&["LDL", "STL"]));
        code.warp += usize::from(holds(&["IMMA."]));
        code.group += usize::from(holds(&["IGMMA."]));
    }
    assert!(!found.is_empty());
    found
}
