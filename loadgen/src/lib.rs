//! A workload of many users, the history of what they saw, and the checker of what SPEC.md promises.
//!
//! The same code judges simulated, container and live runs: [`workload::run`] drives client libraries over
//! any [`protocol::Net`] and writes down every invocation, outcome and delivery; [`checker::check`] is a pure
//! function from that [`History`] to a [`Verdict`].
//!
//! - [`history`]: what is recorded, and its file
//! - [`checker`]: the invariants, a file each
//! - [`workload`]: the users, a value ([`workload::Plan`]) and a seed, or a list ([`workload::script`])
//! - [`canary`]: the token that every text carries, by which a leak is recognised
//! - [`tap`]: what looks for that token in every byte that a device receives
//! - [`rng`]: the seeded generator
//! - [`load`]: chatload, the load generator; [`hostile`]: its opposite

pub mod canary;
pub mod checker;
pub mod history;
pub mod hostile;
pub mod load;
pub mod rng;
pub mod tap;
pub mod workload;

pub use checker::{Anomaly, Comparison, Invariant, Verdict, check, compare};
pub use history::{History, Recorder};
pub use workload::{Plan, Signals, Workload, run};
