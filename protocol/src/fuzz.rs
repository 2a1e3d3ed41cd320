//! What holds for any bytes: checked by the fuzz targets of these names, and by the tests over what is stored in `fuzz/`. Nothing of it is
//! in other builds.

pub mod codec;
pub mod request;

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::{codec, replay::replay, request};

    #[test]
    fn stored_streams_are_split_into_the_same_lines() {
        replay("codec", codec::check);
    }

    #[test]
    fn stored_requests_have_one_meaning() {
        replay("request", request::check);
    }
}
