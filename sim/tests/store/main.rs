//! The simulator's database: no store can be told from it but by what goes wrong on demand.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing fails")]

mod conformance;
mod faults;
mod hostile;
#[path = "../memory/mod.rs"]
mod memory;
mod net;
mod speed;
