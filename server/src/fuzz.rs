//! What holds for any bytes: checked by the fuzz targets of these names, and by the tests over what is stored in `fuzz/`. Nothing of it is
//! in other builds.

pub mod request;

pub use crate::{config::fuzz as config, connection::proxy_fuzz as proxy, relay::redis::hints_fuzz as hints};

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::{config, hints, proxy, replay::replay, request};

    #[test]
    fn stored_stories_are_answered_line_by_line() {
        replay("request", request::check);
    }

    #[test]
    fn stored_proxy_headers_are_read_in_any_pieces() {
        replay("proxy", proxy::check);
    }

    #[test]
    fn stored_configurations_are_shown_as_they_are_read() {
        replay("config", config::check);
    }

    #[test]
    fn stored_hints_say_what_a_node_could_say() {
        replay("hints", hints::check);
    }
}
