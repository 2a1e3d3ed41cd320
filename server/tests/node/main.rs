//! Tests of whole nodes in this process, over real sockets, through the wire protocol alone.

mod harness;
mod spec;
