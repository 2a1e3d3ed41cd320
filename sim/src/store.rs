//! The database of a simulated deployment: a host of its own, and the nodes' way to it.
//!
//! - [`RemoteStore`]: a node's [`Store`](server::store::Store), which asks the host over the network as the MySQL store asks its server
//! - [`serve`]: the host, which answers from a [`Database`]: the memory store, and what goes wrong on demand ([`Faults`])
//!
//! The form on the wire is private to the two: frames of JSON, one request at a time on a connection.

mod client;
mod database;
mod frames;
mod host;
mod methods;

pub use self::{
    client::{Limits, RemoteStore},
    database::{Database, Faults, Met},
    host::{serve, serve_on},
};
