//! Deterministic simulation of a whole cluster.
//!
//! Real nodes, real clients and the real redis crate run on turmoil's network and clock, in one thread. A run is a pure function of a
//! scenario, which is a value; its history is judged by [`loadgen`]'s checker.

pub mod balancer;
pub mod clock;
pub mod coverage;
pub mod determinism;
pub mod entropy;
pub mod explain;
pub mod faults;
pub mod generate;
pub mod net;
pub mod passwords;
pub mod redis;
pub mod report;
pub mod run;
pub mod scenario;
pub mod shrink;
pub mod store;
pub mod swarm;
pub mod trace;
pub mod world;
