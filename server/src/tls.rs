//! What a node's port needs to speak TLS: certificates and key, read at the start and again when they may have changed.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use protocol::{
    UnixMillis,
    tls::{TlsError, certificates, provider, read},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        Error, ServerConfig,
        pki_types::{PrivateKeyDer, pem::PemObject as _},
        server::NoServerSessionStorage,
    },
};

use crate::config::date;

/// Where certificates and key are, and what is in use of them. Every clone of an `Arc` of it sees the same.
pub struct Tls {
    certificates: PathBuf,
    key: PathBuf,
    in_use: RwLock<InUse>,
}

#[derive(Clone)]
struct InUse {
    config: Arc<ServerConfig>,
    ends: UnixMillis,
}

impl Tls {
    /// Reads a file of certificates (the node's own first, then those that lead to what clients trust) and one of its key, in PEM.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(certificates: &Path, key: &Path) -> Result<Self, TlsError> {
        let in_use = RwLock::new(pair(certificates, key)?);
        Ok(Self { certificates: certificates.to_owned(), key: key.to_owned(), in_use })
    }

    /// Reads both files again: connections that come afterwards are served with what they hold then.
    ///
    /// # Errors
    /// See [`TlsError`]; what was in use stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let pair = pair(&self.certificates, &self.key)?;
        *self.in_use.write().unwrap_or_else(PoisonError::into_inner) = pair;
        Ok(())
    }

    /// Until when the node's own certificate is valid: clients refuse it afterwards.
    pub fn ends(&self) -> UnixMillis {
        self.in_use().ends
    }

    /// For one connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.in_use().config.into()
    }

    fn in_use(&self) -> InUse {
        self.in_use.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("certificates", &self.certificates)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

fn pair(chain: &Path, key: &Path) -> Result<InUse, TlsError> {
    let chain_read = certificates(chain)?;
    let ends = chain_read.first().and_then(|own| ends(own));
    let ends = ends.ok_or_else(|| TlsError::Unusable(chain.to_owned(), "not a certificate".into()))?;
    let key_read = private_key(key)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Setup(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain_read, key_read)
        .map_err(|error| match error {
            Error::InconsistentKeys(_) => TlsError::Setup(format!(
                "{} is not the key of the first certificate in {}",
                key.display(),
                chain.display()
            )),
            Error::InvalidCertificate(error) => TlsError::Unusable(chain.to_owned(), error.to_string()),
            error => TlsError::Unusable(key.to_owned(), error.to_string()),
        })?;
    // Nothing is kept of a session: connections live long and nodes share no keys, so few handshakes would be spared; and what would spare
    // them is a key that opens recorded ones.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(InUse { config: Arc::new(config), ends })
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        let why = "it holds no private key in PEM (PKCS #8, PKCS #1 or SEC 1, not encrypted)";
        TlsError::Unusable(path.to_owned(), why.into())
    })
}

/// When a certificate's validity ends (RFC 5280, section 4.1): the second time of the fifth element, or the fourth where there is no version.
fn ends(certificate: &[u8]) -> Option<UnixMillis> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    if let (VERSION, _, rest) = element(fields)? {
        fields = rest;
    }
    for _serial_algorithm_issuer in 0..3 {
        fields = element(fields)?.2;
    }
    let (_, validity, _) = element(fields)?;
    let (tag, time, _) = element(element(validity)?.2)?;
    let time = std::str::from_utf8(time).ok()?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = time.split_at_checked(2)?;
            // From 1950 to 2049.
            (format!("{}{year}", if year < "50" { "20" } else { "19" }), rest)
        }
        GENERALIZED_TIME => time.split_at_checked(4).map(|(year, rest)| (year.to_owned(), rest))?,
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2);
    let number = |at| part(at)?.parse::<UnixMillis>().ok();
    let day = date(&format!("{year}-{}-{}", part(0)?, part(2)?)).ok()?;
    Some(day + ((number(4)? * 60 + number(6)?) * 60 + number(8)?) * 1000)
}

const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The first element of DER: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, short], rest) = der.split_first_chunk()?;
    let (length, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        // Longer than any certificate.
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, month, day);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_of_a_certificate_is_read() {
        assert_eq!(ends(&certificate(2026, 11, 24)), Some(1_795_478_400_000));
        assert_eq!(ends(&certificate(1999, 12, 31)), Some(946_598_400_000));
        // From 2050 on, years have four digits.
        assert_eq!(ends(&certificate(2099, 12, 31)), Some(4_102_358_400_000));
        let whole = certificate(2026, 11, 24);
        for length in 0..100 {
            assert_eq!(ends(&whole[..length]), None);
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index) {
            let _ = ends(&bytes);
            let mut broken = certificate(2026, 11, 24);
            let at = at.index(broken.len());
            let end = broken.len().min(at + bytes.len());
            broken[at..end].copy_from_slice(&bytes[..end - at]);
            let _ = ends(&broken);
        }
    }
}
