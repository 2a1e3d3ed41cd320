//! Certificates for tests: an authority, what it signs, and files of them.

use std::path::{Path, PathBuf};

use client::TlsPeer;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;

/// Who signs.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate, in PEM.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Its own certificate with its key, which no server should use.
    pub(crate) fn itself(&self) -> Pair {
        Pair { certificate: self.0.pem(), key: self.0.key().serialize_pem() }
    }

    /// A certificate for these names and addresses.
    pub(crate) fn signs(&self, names: &[&str]) -> Pair {
        self.sign(&params(names))
    }

    /// One whose time is over.
    pub(crate) fn signed_long_ago(&self, names: &[&str]) -> Pair {
        let mut params = params(names);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2001, 1, 1);
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        Pair { certificate, key: key.serialize_pem() }
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    // Two certificates of one authority differ in more than their keys.
    params.distinguished_name.push(DnType::CommonName, "chat node");
    params
}

/// A folder with an authority's certificate, and a pair that it signed for 127.0.0.1 and localhost.
pub(crate) struct Files {
    folder: TempDir,
    pub(crate) authority: Authority,
}

impl Files {
    pub(crate) fn new() -> Self {
        let files =
            Self { folder: TempDir::new().unwrap(), authority: Authority::new("chat test authority") };
        std::fs::write(files.ca(), files.authority.pem()).unwrap();
        files.put(&files.authority.signs(&["127.0.0.1", "localhost"]));
        files
    }

    /// Puts another pair in place of the one that is there.
    pub(crate) fn put(&self, pair: &Pair) {
        std::fs::write(self.path("cert.pem"), &pair.certificate).unwrap();
        std::fs::write(self.path("key.pem"), &pair.key).unwrap();
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a node is told of the pair, and more.
    pub(crate) fn options<'a>(&self, more: &[&'a str]) -> Vec<Text<'a>> {
        let own = ["--tls-cert".into(), self.text("cert.pem"), "--tls-key".into(), self.text("key.pem")];
        own.into_iter().chain(more.iter().map(|word| (*word).into())).collect()
    }

    fn text(&self, name: &str) -> Text<'static> {
        self.path(name).to_str().unwrap().to_owned().into()
    }

    /// Whom a client expects at 127.0.0.1.
    pub(crate) fn peer(&self) -> TlsPeer {
        peer(&self.ca())
    }
}

type Text<'a> = std::borrow::Cow<'a, str>;

/// Whom a client expects at 127.0.0.1 that trusts this file.
pub(crate) fn peer(ca: &Path) -> TlsPeer {
    TlsPeer::new("127.0.0.1", Some(ca)).unwrap()
}
