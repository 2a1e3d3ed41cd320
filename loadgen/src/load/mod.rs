//! chatload: load on a live deployment, open-loop latencies, and a check of everything that arrives.
//!
//! [`run`] leads users, each a task with one connection, through set-up, load, settling and end. The connection is the client
//! library's session machine in a shell of its own, since a run has ten thousand of them on two processors.
//!
//! - `options`: the command line; `layout`: the users, conversations and senders that follow from it
//! - `driver`: the stages of a run, the measured window, the search for the highest rate
//! - `user`: what one user does; `connection`: the shell around [`client::session`]; `sources`: where it comes from
//! - `schedule`: intended times; `stats`: latencies from them; `outages`: lost connections; `system`: processes and stolen time
//! - `stamp`, `arrivals`, `reconcile`: the check of every message
//! - [`report`], [`html`], `summary`: what comes out, of one run and of many

mod arrivals;
mod connection;
mod driver;
pub mod html;
mod layout;
mod options;
mod outages;
mod reconcile;
pub mod report;
mod schedule;
mod sources;
mod stamp;
mod stats;
mod summary;
mod system;
mod user;

pub use arrivals::Anomalies;
pub use driver::{Accounts, PASSWORD, run, users};
pub(crate) use options::duration;
pub use options::{Options, PrepareOptions, Scenario, SpacingOption, Until};
pub use outages::Outages;
pub use report::{Report, compare};
pub use sources::addresses;
pub(crate) use sources::loopback_network;
pub use stats::{Bar, Percentiles, Slice};
pub use summary::{Figure, Summary, table};
pub use system::Machine;
