//! `device create`, `list` and `revoke`: who may talk to the server.

use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

use crate::cli::app::App;
use crate::cli::stop::Outcome;
use crate::cli::style;
use crate::cli::table;
use crate::server::{Devices, Invite};
use crate::shape::time;

/// Invite, list and revoke the devices of the sync server.
#[derive(Debug, Subcommand)]
pub(crate) enum Device {
    Create(Create),
    /// List the devices.
    List,
    Revoke(Revoke),
}

/// Make a code by which a device enrols. It is good once.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// What the device is called.
    #[arg(long)]
    name: String,
    /// What it may do: reader, writer, operator, admin.
    #[arg(long, default_value = "writer")]
    role: String,
    /// The source that its edits come from.
    #[arg(long, default_value = "app", value_name = "NAME")]
    source: String,
    /// The id of the device that the code is for, also where it is enrolled already.
    #[arg(long)]
    id: Option<String>,
    /// The collections that it may read; without this, all.
    #[arg(long, value_name = "COLLECTION,…", value_delimiter = ',')]
    reads: Option<Vec<String>>,
    /// The collections that it may write; without this, all.
    #[arg(long, value_name = "COLLECTION,…", value_delimiter = ',')]
    writes: Option<Vec<String>>,
    /// For how many hours the code is good.
    #[arg(long, default_value_t = 24, value_name = "HOURS")]
    valid: u32,
}

/// Take all rights from a device, from its next request on.
#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// Its id.
    id: String,
}

impl Device {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        match self {
            Self::Create(command) => command.run(app),
            Self::List => list(app),
            Self::Revoke(command) => command.run(app),
        }
    }
}

impl Create {
    fn run(self, app: &mut App) -> Outcome {
        let invite = Invite {
            name: self.name.clone(),
            role: self.role,
            source: self.source,
            device: self.id,
            reads: self.reads,
            writes: self.writes,
            valid_ms: i64::from(self.valid) * 3_600_000,
        };
        let invited = Devices::of(&app.ledger()?)?.invite(invite)?;
        let object =
            json!({ "code": invited.code, "name": self.name, "expires_at": time::to_json(invited.until_ms) });
        app.out
            .note(style::dim(format!("good once, until {}; for `syncledger enrol`", time::people(invited.until_ms))));
        // The code alone, so that a shell can hand it on.
        app.out.answer(&object, || invited.code.clone())
    }
}

impl Revoke {
    fn run(self, app: &mut App) -> Outcome {
        Devices::of(&app.ledger()?)?.revoke(&self.id)?;
        let text = || format!("{} device {}", style::good("revoked"), style::name(&self.id));
        app.out.answer(&json!({ "device_id": self.id, "state": "revoked" }), text)
    }
}

fn list(app: &mut App) -> Outcome {
    let devices = Devices::of(&app.ledger()?)?.list()?;
    app.out.list(&devices, || {
        let mut table = table::table(&["device", "name", "role", "source", "state"]);
        for device in &devices {
            let text = |name: &str| device.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
            table.add_row([
                style::name(text("device_id")),
                text("name"),
                text("role"),
                text("source"),
                text("state"),
            ]);
        }
        table::text(table)
    })
}
