//! `serve`: the sync server.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::cli::app::App;
use crate::cli::stop::{Outcome, Stop};
use crate::cli::style;
use crate::server::{AlertSettings, Server, Tls};
use crate::{Error, ErrorKind};

/// Serve the store to devices, until Ctrl-C or SIGTERM. Other commands on the store go on to work: this process runs them.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where to listen. Port 0 takes a free one.
    #[arg(long, env = "SYNCLEDGER_LISTEN", default_value = "127.0.0.1:7171", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// A chain of certificates in PEM: with it only TLS 1.3 is spoken.
    #[arg(long, env = "SYNCLEDGER_TLS_CERT", requires = "tls_key", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key in PEM.
    #[arg(long, env = "SYNCLEDGER_TLS_KEY", requires = "tls_cert", value_name = "FILE")]
    tls_key: Option<PathBuf>,
}

impl Serve {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let tls = self.tls_cert.as_deref().zip(self.tls_key.as_deref()).map(|(cert, key)| Tls::read(cert, key));
        let tls = tls.transpose()?;
        let store = app.store_or_create()?;
        store.ledger_or_create(&app.globals.ledger)?;
        let server = Server::new(store.clone())?.with_alerts(AlertSettings::default())?;
        let listener = TcpListener::bind(self.listen).map_err(|fault| self.taken(&fault))?;
        #[cfg(unix)]
        let control = listen_for_commands(app, &store);
        announce(app, listener.local_addr()?, tls.is_some())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(server.serve(listener, tls, asked_to_end()))?;
        #[cfg(unix)]
        drop(control);
        drop(runtime);
        Ok(store.close()?)
    }

    fn taken(&self, fault: &std::io::Error) -> Stop {
        Error::new(ErrorKind::Network, format!("cannot listen at {}: {fault}", self.listen))
            .with_hint("choose another address with --listen; port 0 takes a free one")
            .into()
    }
}

/// Other commands on the store are run here. Where that cannot be, they find it locked.
#[cfg(unix)]
fn listen_for_commands(app: &App, store: &crate::Store) -> Option<crate::cli::control::Control> {
    let listened = crate::cli::control::Control::listen(store);
    listened.inspect_err(|fault| app.out.note(format!("other commands on this store have to wait: {fault}"))).ok()
}

fn announce(app: &mut App, address: SocketAddr, tls: bool) -> Outcome {
    let url = format!("{}://{address}", if tls { "https" } else { "http" });
    app.out.answer(&json!({ "listening": url }), || {
        let how = style::dim("syncledger device create --name N --role writer --source app");
        format!("{} {url}\nenrol a device with a code from: {how}", style::good("listening:"))
    })?;
    app.out.flush()
}

/// Waits for Ctrl-C, or for who ends what runs in the background.
async fn asked_to_end() {
    let interrupted = async {
        // Where that cannot be heard, only the other way is left.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = interrupted => {}
        () = terminated() => {}
    }
}

#[cfg(unix)]
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn terminated() {
    std::future::pending().await
}
