//! chatserver: a node of the clustered chat system.
//!
//! The one idea: the log is the truth, everything else is a hint. A conversation is an append-only log in the [`store`];
//! a [`session`] is a set of cursors over logs; delivering is advancing a cursor.
//!
//! From a request to its effect:
//!
//! - [`listener`] accepts, [`connection`] reads lines and runs [`commands`]
//! - [`admission`] lets only so many sessions be opened at once, and [`throttle`] each address, account and session only ask for so much
//! - [`committer`] writes entries, many in one statement, as [`rights`] allow
//! - [`feed`] and [`feeds`] hold each conversation's head and recent entries, and tell sessions of progress through their [`outbox`]
//! - [`relay`] tells other nodes; [`sweep`] finds what it did not tell
//! - [`registry`] knows who is online; [`delivered`] writes how far users have read
//! - [`retention`] erases messages that are too old, [`erasure`] an account
//! - [`backlog`] is what connections hold for clients that do not read, and ends those that have for longest when it is too much
//! - [`gauges`] says how much a node holds, and [`sizes`] how much it may, where that is a matter of speed
//! - [`metrics`] are counted, and [`admin`] shows them to operators
//! - [`node`] puts it together; [`config`] and `main` make it a program
pub mod admin;
pub mod admission;
pub mod backlog;
pub mod commands;
pub mod committer;
pub mod config;
pub mod connection;
pub mod delivered;
pub mod erasure;
pub mod feed;
pub mod feeds;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod gauges;
pub mod listener;
pub mod metrics;
pub mod niceness;
pub mod node;
pub mod outbox;
pub mod password;
pub mod registry;
pub mod relay;
pub mod retention;
pub mod rights;
pub mod session;
pub mod sizes;
pub mod store;
pub mod sweep;
pub mod throttle;
pub mod tls;
pub mod turns;
