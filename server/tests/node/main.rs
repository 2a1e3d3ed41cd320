//! Tests of whole nodes in this process, over real sockets, through the wire protocol alone.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing fails")]

mod admin;
mod authorisation;
mod backups;
mod certificates;
mod cluster;
mod ctl;
mod defects;
mod delivery;
mod docker;
mod e2e;
mod erasing;
mod faults;
mod harness;
mod hostile;
mod limits;
mod logs;
mod mysql;
mod passwords;
mod probing;
mod process;
mod redis;
mod relays;
mod replaced;
mod spec;
mod stores;
mod terminal;
mod tls;
mod transfer;
