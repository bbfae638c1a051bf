//! Plain requests over the loopback from any of its addresses, and a line to the server that counts bytes.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use super::runtime;
use crate::Result;

pub fn address(url: &str) -> Result<SocketAddr> {
    Ok(url.trim_start_matches("http://").parse()?)
}

/// A connection to the server from an address of the loopback: its limits are for each.
pub async fn connect(url: &str, from: &str) -> Result<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from.parse()?, 0))?;
    Ok(socket.connect(address(url)?).await?)
}

/// Posts JSON and takes JSON, over a connection of its own.
pub fn post(url: &str, from: &str, path: &str, token: Option<&str>, body: &Value) -> Result<Value> {
    runtime()?.block_on(post_on(url, from, path, token, body))
}

async fn post_on(url: &str, from: &str, path: &str, token: Option<&str>, body: &Value) -> Result<Value> {
    let mut stream = connect(url, from).await?;
    let body = serde_json::to_vec(body)?;
    let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: versus\r\nconnection: close\r\ncontent-type: application/json\r\n{authorization}content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer has no end of its head")?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(format!("expected 200, got {answer}").into());
    }
    Ok(serde_json::from_str(body)?)
}

/// Passes bytes on between devices and the server, and counts them, to the server and from it.
pub struct Counted {
    pub url: String,
    to_server: Arc<AtomicU64>,
    to_devices: Arc<AtomicU64>,
}

impl Counted {
    pub fn to(url: &str) -> Result<Self> {
        let (listener, server) = (TcpListener::bind("127.0.0.1:0")?, address(url)?);
        let counted = Self {
            url: format!("http://{}", listener.local_addr()?),
            to_server: Arc::default(),
            to_devices: Arc::default(),
        };
        let (up, down) = (counted.to_server.clone(), counted.to_devices.clone());
        std::thread::spawn(move || {
            for device in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(server) else { return };
                let _ = (device.set_nodelay(true), server.set_nodelay(true));
                let both = (device.try_clone(), server.try_clone());
                if let (Ok(device_too), Ok(server_too)) = both {
                    let (up, down) = (up.clone(), down.clone());
                    std::thread::spawn(move || pass(device, server_too, &up));
                    std::thread::spawn(move || pass(server, device_too, &down));
                }
            }
        });
        Ok(counted)
    }

    /// How many bytes have gone to the server, and to the devices.
    pub fn bytes(&self) -> (u64, u64) {
        (self.to_server.load(Ordering::Relaxed), self.to_devices.load(Ordering::Relaxed))
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        count.fetch_add(read as u64, Ordering::Relaxed);
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
