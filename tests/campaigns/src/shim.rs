//! Small C libraries that are loaded before the C library, so that the program under test is the real one.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;

/// What they share.
const HEADER: &str = include_str!("shim.h");

/// Compiles one into a directory.
pub fn compile(dir: &Path, name: &str, source: &str) -> Result<PathBuf> {
    let (file, shim) = (dir.join(format!("{name}.c")), dir.join(format!("{name}.so")));
    std::fs::write(dir.join("shim.h"), HEADER)?;
    std::fs::write(&file, source)?;
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O2", "-Wall", "-o"]).arg(&shim).arg(&file).args(["-ldl", "-lpthread"]);
    match compiler.status()?.success() {
        true => Ok(shim),
        false => Err(format!("the library `{name}` does not compile: is there a C compiler `cc`?").into()),
    }
}
