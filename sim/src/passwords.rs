//! Passwords that cost nothing: hashing is slow on purpose, and not what is simulated.

use async_trait::async_trait;
use server::password::{HashError, Passwords};

/// Keeps passwords as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Plain {
    /// What a password becomes.
    pub fn hashed(password: &str) -> String {
        format!("plain${password}")
    }
}

#[async_trait]
impl Passwords for Plain {
    async fn hash(&self, password: &str) -> Result<String, HashError> {
        Ok(Self::hashed(password))
    }

    async fn verify(&self, password: &str, hash: Option<&str>) -> Result<bool, HashError> {
        Ok(hash == Some(&Self::hashed(password)))
    }

    fn is_outdated(&self, _: &str) -> bool {
        false
    }
}
