//! `enrol`: makes the store's ledger a device of a sync server.

use clap::Args;
use serde_json::json;

use crate::cli::app::App;
use crate::cli::stop::{Outcome, Stop};
use crate::cli::style;
use crate::client::Tokens;

/// Make the ledger a device of a sync server, with a code from `device create` there. Makes the store where there is none.
#[derive(Debug, Args)]
pub(crate) struct Enrol {
    /// The address of the server: https://host:port.
    url: String,
    /// The code, which is good once.
    code: String,
    /// The device's id; without it that of before, or a random one.
    #[arg(long)]
    id: Option<String>,
    /// What people call it.
    #[arg(long)]
    name: Option<String>,
}

impl Enrol {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.store_or_create()?.ledger_or_create(&app.globals.ledger)?;
        let runtime = super::sync::runtime()?;
        let (id, name) = (self.id.as_deref(), self.name.as_deref());
        let tokens = runtime.block_on(Tokens::enrol(&ledger, &self.url, &self.code, id, name));
        let tokens = tokens.map_err(Stop::of_server)?;
        let (url, device) = (tokens.url(), tokens.device());
        app.out.answer(&json!({ "url": url, "device_id": device, "ledger": ledger.info().name }), || {
            let how = style::dim("syncledger sync");
            format!("{} device {} of {url}\nsync with: {how}", style::good("enrolled:"), style::name(&device))
        })
    }
}
