//! `serve`: the sync server.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::app::App;
use crate::cli::args::Globals;
use crate::cli::configuration::{Configuration, LogFormat, LogLevel, environment, path_flag};
use crate::cli::output;
use crate::cli::stop::{Outcome, Stop};
use crate::cli::style;
use crate::server::{Server, Tls};
use crate::{Error, ErrorKind};

/// Serve the store to devices, until Ctrl-C or SIGTERM. Other commands on the store go on to work: this process runs them.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    options: ServeOptions,
}

/// What the server runs with. What is not said here is looked for in the environment, then in the file, then built in: `syncledger
/// config explain` shows it.
#[derive(Debug, Args)]
pub(crate) struct ServeOptions {
    /// A file of settings, in YAML.
    #[arg(long, env = "SYNCLEDGER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen: 127.0.0.1:7171 unless said otherwise. Port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// A chain of certificates in PEM: with it only TLS 1.3 is spoken.
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key in PEM.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// How the log on stderr looks.
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// What it tells; -v and -q go over it.
    #[arg(long, value_enum, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
}

impl ServeOptions {
    /// The settings with these flags over the environment and the file.
    pub(super) fn configuration(&self, globals: &Globals) -> Outcome<Configuration> {
        let given = |is_given: bool, setting, flag, text: String| is_given.then_some((setting, flag, text));
        let said = |text: Option<String>, setting, flag| text.map(|text| (setting, flag, text));
        let (format, level) = (self.log_format.map(name), self.log_level.map(name));
        let flags = [
            given(globals.given.store, "store", "--store", globals.store.display().to_string()),
            given(globals.given.ledger, "ledger", "--ledger", globals.ledger.clone()),
            said(self.listen.map(|address| address.to_string()), "listen", "--listen"),
            path_flag("tls.cert", "--tls-cert", self.tls_cert.as_ref()),
            path_flag("tls.key", "--tls-key", self.tls_key.as_ref()),
            said(format, "logs.format", "--log-format"),
            said(level, "logs.level", "--log-level"),
        ];
        let flags = flags.into_iter().flatten().collect();
        Configuration::read(self.config.as_deref(), environment, flags).map_err(Stop::misconfigured)
    }
}

/// A value of a flag as it is written.
fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

impl Serve {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let configuration = self.options.configuration(&app.globals)?;
        let file = configuration.file;
        file.check().map_err(Stop::misconfigured)?;
        output::trace_server(file.logs, app.globals.verbose, app.globals.quiet);
        (app.globals.store, app.globals.ledger) = (file.store.clone(), file.ledger.clone());
        let tls = file.tls.cert.as_deref().zip(file.tls.key.as_deref()).map(|(cert, key)| Tls::read(cert, key));
        let tls = tls.transpose()?;
        let store = app.store_or_create()?;
        store.ledger_or_create(&app.globals.ledger)?;
        let server = Server::with_settings(store.clone(), file.server())?;
        let server = server.with_alerts(file.alerts.clone())?.with_webhooks(file.webhooks.clone())?;
        let listener = TcpListener::bind(file.listen).map_err(|fault| taken(file.listen, &fault))?;
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
}

fn taken(address: SocketAddr, fault: &std::io::Error) -> Stop {
    Error::new(ErrorKind::Network, format!("cannot listen at {address}: {fault}"))
        .with_hint("choose another address with --listen; port 0 takes a free one")
        .into()
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
