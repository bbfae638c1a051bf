//! An image in a directory, opened and checked by a process of its own: it may panic or hang.

use std::path::Path;

use super::disk::{Found, Image};
use super::record;
use crate::Result;
use crate::child;
use crate::promise::Promises;

/// Puts an image into a directory that is not there yet.
pub fn build(dir: &Path, image: &Image) -> Result<()> {
    std::fs::create_dir(dir)?;
    for (path, found) in image {
        let path = dir.join(path);
        match found {
            Found::Dir => std::fs::create_dir(path)?,
            Found::File(bytes) => std::fs::write(path, bytes)?,
        }
    }
    Ok(())
}

/// What is not as promised in an image, a line each. With a shim and a trace, everything that is changed is recorded.
pub fn check(dir: &Path, promises: &Promises, seed: u64, recorded: Option<(&Path, &Path)>) -> Result<Vec<String>> {
    let promised = dir.with_extension("promised");
    std::fs::write(&promised, promises.lines())?;
    let mut command = child::command(&["check"])?;
    command.args([dir, &promised]).args(["--seed", &seed.to_string()]);
    if let Some((shim, trace)) = recorded {
        record::with_shim(&mut command, shim, dir, trace);
    }
    let ended = child::finish(&mut command, dir)?;
    let mut found: Vec<String> = ended.out.lines().map(str::to_owned).collect();
    if ended.code != Some(i32::from(!found.is_empty())) {
        found.push(format!("wrong {}", ended.told()));
    }
    std::fs::remove_file(promised)?;
    Ok(found)
}
