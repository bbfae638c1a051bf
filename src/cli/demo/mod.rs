//! `demo`.
use super::app::App;
use super::stop::Outcome;
use clap::Args;
/// d
#[derive(Debug, Args)]
pub(crate) struct Demo {}
impl Demo {
    pub(crate) fn run(self, _app: &mut App) -> Outcome {
        Ok(())
    }
}
