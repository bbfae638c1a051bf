//! Serving the router at an address, for who has no server of its own.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::RustlsConfig;
use axum_server::{Handle, from_tcp, from_tcp_rustls};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Server;
use crate::{Error, ErrorKind, Result};

/// How long a connection may take to send its first request, and each request's head.
const HEAD: Duration = Duration::from_secs(10);
/// How many bytes the head of a request may have.
const HEAD_BYTES: usize = 16 << 10;
/// How long requests that run have to end.
const FAREWELL: Duration = Duration::from_secs(10);

/// A certificate and its key, for TLS 1.3.
#[derive(Clone, Debug)]
pub struct Tls(Arc<ServerConfig>);

impl Tls {
    /// Reads a chain of certificates and a private key from PEM files.
    ///
    /// # Errors
    /// `not_found`, `permission` or `storage` where a file cannot be read; `validation` where it holds something else.
    pub fn read(certificates: &Path, key: &Path) -> Result<Self> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificates)
            .and_then(Iterator::collect)
            .map_err(|fault| unread(certificates, &fault));
        let key_read = PrivateKeyDer::from_pem_file(key).map_err(|fault| unread(key, &fault))?;
        let unfit = |fault: rustls::Error| {
            let message =
                format!("{} and {} are no certificate and its key: {fault}", certificates.display(), key.display());
            Error::new(ErrorKind::Validation, message)
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unfit)?
            .with_no_client_auth()
            .with_single_cert(chain?, key_read)
            .map_err(unfit)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }
}

fn unread(path: &Path, fault: &rustls::pki_types::pem::Error) -> Error {
    use std::io::ErrorKind::{NotFound, PermissionDenied};
    if let rustls::pki_types::pem::Error::Io(fault) = fault {
        let kind = match fault.kind() {
            NotFound => ErrorKind::NotFound,
            PermissionDenied => ErrorKind::Permission,
            _ => ErrorKind::Storage,
        };
        return Error::new(kind, format!("cannot read {}: {fault}", path.display()));
    }
    let message = format!("expected PEM in {}: {fault}", path.display());
    Error::new(ErrorKind::Validation, message).with_hint("give files with `-----BEGIN …-----` sections")
}

impl Server {
    /// Serves at an address that is listened to, until `stop` is ready; then ends the sessions, and finishes requests that run.
    /// Meanwhile it makes the backups that its settings ask for.
    ///
    /// # Errors
    /// `network` where the address fails.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: Option<Tls>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<()> {
        let failed = |fault: std::io::Error| Error::new(ErrorKind::Network, format!("cannot serve: {fault}"));
        listener.set_nonblocking(true).map_err(failed)?;
        let handle = Handle::new();
        tokio::spawn(end(self.clone(), handle.clone(), stop));
        let attending = self.clone();
        tokio::spawn(async move { attending.attend().await });
        let server = self.clone();
        tokio::spawn(async move { server.back_up().await });
        let service = self.router().into_make_service_with_connect_info::<SocketAddr>();
        let served = match tls {
            None => {
                let server = from_tcp(listener).map_err(failed)?.handle(handle).first_request_timeout(HEAD);
                let mut server = server.acceptor(NoDelayAcceptor::new());
                server.http_builder().http1().header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
                server.serve(service).await
            }
            Some(Tls(config)) => {
                let config = RustlsConfig::from_config(config);
                let server = from_tcp_rustls(listener, config).map_err(failed)?.handle(handle);
                let server = server.first_request_timeout(HEAD);
                let mut server = server.map(|tls| tls.acceptor(NoDelayAcceptor::new()));
                server.http_builder().http1().header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
                server.serve(service).await
            }
        };
        served.map_err(failed)
    }
}

async fn end(server: Server, handle: Handle<SocketAddr>, stop: impl Future<Output = ()>) {
    stop.await;
    server.end();
    handle.graceful_shutdown(Some(FAREWELL));
}
