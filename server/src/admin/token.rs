//! The operators' token: a secret that every node of a deployment is given, and whoever may ask and act.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The shortest token.
const BYTES_MIN: usize = 16;

/// The token, as its hash: what was given is compared with it in constant time. Its `Debug` form hides it.
#[derive(Clone)]
pub struct AdminToken([u8; 32]);

impl AdminToken {
    /// A token; `None` if it is too short.
    pub fn new(secret: &str) -> Option<Self> {
        (secret.len() >= BYTES_MIN).then(|| Self(Sha256::digest(secret).into()))
    }

    /// Whether this is what an `Authorization` header says.
    pub fn is_in(&self, header: Option<&[u8]>) -> bool {
        const SCHEME: &[u8] = b"bearer ";
        let Some((scheme, given)) = header.and_then(|header| header.split_at_checked(SCHEME.len())) else {
            return false;
        };
        let given: [u8; 32] = Sha256::digest(given).into();
        // All bytes, whichever differ.
        let differences = given.iter().zip(&self.0).fold(0, |found, (a, b)| found | (a ^ b));
        scheme.eq_ignore_ascii_case(SCHEME) && std::hint::black_box(differences) == 0
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_the_token_or_not() {
        assert!(AdminToken::new("fifteen bytes..").is_none());
        let token = AdminToken::new("sixteen bytes...").unwrap();
        let check = |header: &[u8], expected| {
            assert_eq!(token.is_in(Some(header)), expected, "{}", String::from_utf8_lossy(header));
        };
        check(b"Bearer sixteen bytes...", true);
        check(b"bearer sixteen bytes...", true);
        check(b"Bearer sixteen bytes..", false);
        check(b"Bearer sixteen bytes....", false);
        check(b"Bearer  sixteen bytes...", false);
        check(b"Basic: sixteen bytes...", false);
        check(b"sixteen bytes...", false);
        check(b"Bearer", false);
        check(b"", false);
        check(b"Bearer \xff\xff", false);
        assert!(!token.is_in(None));
        assert!(!format!("{token:?}").contains("sixteen"));
    }
}
