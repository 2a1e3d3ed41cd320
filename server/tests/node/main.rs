//! Tests of whole nodes in this process, over real sockets, through the wire protocol alone.

mod cluster;
mod defects;
mod delivery;
mod faults;
mod harness;
mod limits;
mod spec;
mod stores;
