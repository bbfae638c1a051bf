//! The commands, one file for each or for a small family.

mod annotate;
mod archive;
mod backup;
mod batch;
pub(super) mod blame;
mod completions;
#[cfg(feature = "server")]
mod config;
mod conflicts;
mod delete;
#[cfg(feature = "server")]
mod device;
mod diff;
mod digest;
mod doctor;
#[cfg(feature = "client")]
mod enrol;
mod export;
mod get;
mod history;
#[cfg(unix)]
mod hold;
mod import;
mod init;
mod ledgers;
mod list;
mod log;
mod man;
mod merge;
mod policy;
mod pull;
mod put;
#[cfg(feature = "client")]
mod queue;
mod rebuild;
mod resolve;
mod revert;
mod schema;
#[cfg(feature = "server")]
mod serve;
mod show;
mod status;
#[cfg(feature = "client")]
mod sync;
mod trying;
mod verify;
#[cfg(feature = "server")]
mod webhook;
mod write;

use clap::Subcommand;

use super::app::App;
use super::demo::Demo;
use super::stop::Outcome;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(init::Init),
    #[command(subcommand)]
    Ledger(ledgers::Ledgers),
    Put(put::Put),
    Patch(put::Patch),
    Delete(delete::Delete),
    Undelete(delete::Undelete),
    Batch(batch::Batch),
    Import(import::Import),
    Export(export::Export),
    Get(get::Get),
    List(list::List),
    History(history::History),
    Diff(diff::Diff),
    Blame(blame::Blame),
    Log(log::Log),
    Show(show::Show),
    Conflicts(conflicts::Conflicts),
    Resolve(resolve::Resolve),
    Reopen(annotate::Reopen),
    Annotate(annotate::Annotate),
    #[command(subcommand)]
    Policy(policy::Policies),
    #[command(subcommand)]
    Schema(schema::Schemas),
    Violations(schema::Violations),
    Migrate(schema::Migrate),
    Revert(revert::Revert),
    Undo(revert::Undo),
    Merge(merge::Merge),
    Pull(pull::Pull),
    Push(pull::Push),
    Backup(backup::Backup),
    Archive(archive::Archive),
    Restore(backup::Restore),
    Digest(digest::Digest),
    Status(status::Status),
    Doctor(doctor::Doctor),
    Verify(verify::Verify),
    Rebuild(rebuild::Rebuild),
    #[cfg(unix)]
    Hold(hold::Hold),
    #[cfg(feature = "server")]
    Serve(serve::Serve),
    #[cfg(feature = "server")]
    #[command(subcommand)]
    Device(device::Device),
    #[cfg(feature = "server")]
    #[command(subcommand)]
    Webhook(webhook::Webhook),
    #[cfg(feature = "server")]
    #[command(subcommand)]
    Config(config::Config),
    #[cfg(feature = "client")]
    Enrol(enrol::Enrol),
    #[cfg(feature = "client")]
    Sync(sync::Sync),
    #[cfg(feature = "client")]
    Queue(queue::Queue),
    #[cfg(feature = "client")]
    Peers(queue::Peers),
    Demo(Demo),
    Completions(completions::Completions),
    Man(man::Man),
}

impl Command {
    /// Whether the process that holds the store runs it in our place, where there is one. What needs no store stays here,
    /// and so does what holds one.
    #[cfg(unix)]
    pub(crate) fn is_relayed(&self) -> bool {
        match self {
            #[cfg(feature = "server")]
            Self::Serve(_) | Self::Config(_) => false,
            Self::Hold(_) | Self::Merge(_) | Self::Demo(_) | Self::Completions(_) | Self::Man(_) => false,
            Self::Verify(command) => command.needs_store(),
            Self::Rebuild(command) => command.needs_store(),
            _ => true,
        }
    }

    /// Whether it is the server, which has settings of its own.
    pub(crate) fn is_server(&self) -> bool {
        #[cfg(feature = "server")]
        return matches!(self, Self::Serve(_));
        #[cfg(not(feature = "server"))]
        false
    }

    /// Does it.
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        match self {
            Self::Init(command) => command.run(app),
            Self::Ledger(command) => command.run(app),
            Self::Put(command) => command.run(app),
            Self::Patch(command) => command.run(app),
            Self::Delete(command) => command.run(app),
            Self::Undelete(command) => command.run(app),
            Self::Batch(command) => command.run(app),
            Self::Import(command) => command.run(app),
            Self::Export(command) => command.run(app),
            Self::Get(command) => command.run(app),
            Self::List(command) => command.run(app),
            Self::History(command) => command.run(app),
            Self::Diff(command) => command.run(app),
            Self::Blame(command) => command.run(app),
            Self::Log(command) => command.run(app),
            Self::Show(command) => command.run(app),
            Self::Conflicts(command) => command.run(app),
            Self::Resolve(command) => command.run(app),
            Self::Reopen(command) => command.run(app),
            Self::Annotate(command) => command.run(app),
            Self::Policy(command) => command.run(app),
            Self::Schema(command) => command.run(app),
            Self::Violations(command) => command.run(app),
            Self::Migrate(command) => command.run(app),
            Self::Revert(command) => command.run(app),
            Self::Undo(command) => command.run(app),
            Self::Merge(command) => command.run(app),
            Self::Pull(command) => command.run(app),
            Self::Push(command) => command.run(app),
            Self::Backup(command) => command.run(app),
            Self::Archive(command) => command.run(app),
            Self::Restore(command) => command.run(app),
            Self::Digest(command) => command.run(app),
            Self::Status(command) => command.run(app),
            Self::Doctor(command) => command.run(app),
            Self::Verify(command) => command.run(app),
            Self::Rebuild(command) => command.run(app),
            #[cfg(unix)]
            Self::Hold(command) => command.run(app),
            #[cfg(feature = "server")]
            Self::Serve(command) => command.run(app),
            #[cfg(feature = "server")]
            Self::Device(command) => command.run(app),
            #[cfg(feature = "server")]
            Self::Webhook(command) => command.run(app),
            #[cfg(feature = "server")]
            Self::Config(command) => command.run(app),
            #[cfg(feature = "client")]
            Self::Enrol(command) => command.run(app),
            #[cfg(feature = "client")]
            Self::Sync(command) => command.run(app),
            #[cfg(feature = "client")]
            Self::Queue(command) => command.run(app),
            #[cfg(feature = "client")]
            Self::Peers(command) => command.run(app),
            Self::Demo(command) => command.run(app),
            Self::Completions(command) => command.run(app),
            Self::Man(command) => command.run(),
        }
    }
}
