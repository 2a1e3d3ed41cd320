//! TLS: what is read from files, and whom a program that dials trusts. What a handshake means is its caller's matter.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls_native_certs::load_native_certs;
use thiserror::Error;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, pem::PemObject as _},
    },
};

/// The longest file of certificates or a key: what a system trusts altogether is a fifth of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why TLS cannot be set up.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {}", .0.display(), .1)]
    Unreadable(PathBuf, io::Error),
    /// A file holds something else than it should, or nothing that can be used.
    #[error("{}: {}", .0.display(), .1)]
    Unusable(PathBuf, String),
    /// Neither the system nor SSL_CERT_FILE names anybody to trust.
    #[error("the system trusts no certificates; a file has to name those that are trusted")]
    NoSystemRoots,
    /// Two things do not go together, or a library says no.
    #[error("{0}")]
    Setup(String),
}

/// What computes: one for all, so that no process-wide choice is made.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Dials TLS 1.2 or 1.3 to who has a certificate that leads to one in `ca`, a file in PEM; without a file, to one that the system trusts (or
/// those that SSL_CERT_FILE names).
///
/// # Errors
/// See [`TlsError`].
pub fn connector(ca: Option<&Path>) -> Result<TlsConnector, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates(path)? {
                let added = roots.add(certificate);
                added.map_err(|error| TlsError::Unusable(path.to_owned(), error.to_string()))?;
            }
        }
        None => {
            // What cannot be read or used is the system's matter, as long as something can.
            let (added, _) = roots.add_parsable_certificates(load_native_certs().certs);
            if added == 0 {
                return Err(TlsError::NoSystemRoots);
            }
        }
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Setup(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The certificates in a file in PEM, at least one.
///
/// # Errors
/// See [`TlsError`].
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unusable = |why: String| TlsError::Unusable(path.to_owned(), why);
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let found = found.map_err(|error| unusable(error.to_string()))?;
    if found.is_empty() { Err(unusable("it holds no certificate in PEM".into())) } else { Ok(found) }
}

/// A whole file, unless it is too long to be what it should.
///
/// # Errors
/// See [`TlsError`].
pub fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| TlsError::Unreadable(path.to_owned(), error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(TlsError::Unusable(path.to_owned(), format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with a CA file of this content.
    fn check(content: &[u8], expected: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let error = connector(Some(file.path())).map(|_| ()).unwrap_err().to_string();
        let name = file.path().display().to_string();
        assert!(error.starts_with(&name) && error.contains(expected), "{error}");
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        check(b"", "no certificate");
        check(b"hello\n", "no certificate");
        check(&vec![b'\n'; 2 << 20], "more than 1048576 bytes");
        let pem = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        check(pem("AAAA").as_bytes(), "certificate");
        check(pem("!!!!").as_bytes(), "base64");
        let error = connector(Some(Path::new("/does/not/exist"))).map(|_| ()).unwrap_err();
        assert!(error.to_string().starts_with("/does/not/exist: "), "{error}");
    }
}
