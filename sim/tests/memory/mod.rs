//! A network in memory, for paused time.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use protocol::Net;
use tokio::{
    io::DuplexStream,
    sync::{Mutex as Turn, mpsc},
};

/// Where everybody is.
pub(crate) const ADDRESS: &str = "127.0.0.1:3306";

/// Hosts by address. A host that is gone refuses.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<BTreeMap<String, mpsc::Sender<DuplexStream>>>>);

impl Net for Memory {
    type Listener = Turn<mpsc::Receiver<DuplexStream>>;
    type Stream = DuplexStream;

    async fn bind(&self, addr: &str) -> io::Result<Self::Listener> {
        let (sender, receiver) = mpsc::channel(64);
        self.0.lock().unwrap().insert(addr.into(), sender);
        Ok(Turn::new(receiver))
    }

    fn local_addr(&self, _: &Self::Listener) -> io::Result<SocketAddr> {
        Ok(ADDRESS.parse().unwrap())
    }

    async fn accept(&self, on: &Self::Listener) -> io::Result<(DuplexStream, SocketAddr)> {
        let stream = on.lock().await.recv().await.ok_or(io::ErrorKind::NotConnected)?;
        Ok((stream, ADDRESS.parse().unwrap()))
    }

    async fn connect(&self, addr: &str) -> io::Result<DuplexStream> {
        let host = self.0.lock().unwrap().get(addr).cloned();
        let (here, there) = tokio::io::duplex(64 << 10);
        let host = host.ok_or(io::ErrorKind::ConnectionRefused)?;
        host.send(there).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(here)
    }
}
