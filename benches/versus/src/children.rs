//! Each piece of work in a process of its own, so that its peak of memory is its own and nothing that another one left
//! behind (caches, threads, fragments) slows it down.

use std::process::{Command, Stdio};

use crate::Result;
use crate::options::Options;
use crate::report::Report;
use crate::work::{self, Sizes};

/// Measures one piece of work in this process and prints what it measured as JSON, for [`run`].
pub fn be(name: &str, options: &Options) -> Result<()> {
    let known = work::ALL.iter().find(|(known, _)| *known == name);
    let (_, work) = known.ok_or_else(|| format!("there is no work `{name}`"))?;
    let mut report = Report::default();
    work(&Sizes::divided_by(options.scale), &mut report)?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// Measures one piece of work in a process of its own.
pub fn run(name: &str, options: &Options) -> Result<Report> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--child", name, "--scale", &options.scale.to_string()]);
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("the process that measured `{name}` ended with {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
