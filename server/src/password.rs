//! Password hashing: argon2id, off the event loop, a bounded number at once.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use async_trait::async_trait;
use protocol::Entropy;
use thiserror::Error;
use tokio::sync::Semaphore;

/// Hashes that wait for a processor. When as many wait, a request is refused as `overloaded`.
const WAITING_MAX: usize = 1024;

/// Why a password was neither hashed nor compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HashError {
    /// Too many wait.
    #[error("too many password hashes wait")]
    Overloaded,
    /// The stored hash cannot be read, or the hasher ended.
    #[error("the password hash could not be computed")]
    Failed,
}

/// The seam: a simulation hashes without threads and without cost.
#[async_trait]
pub trait Passwords: Send + Sync + 'static {
    /// A hash in the PHC string format, with a fresh salt.
    async fn hash(&self, password: &str) -> Result<String, HashError>;
    /// Whether a password is the one that was hashed; takes as long for `None`, and is then false.
    async fn verify(&self, password: &str, hash: Option<&str>) -> Result<bool, HashError>;
}

/// argon2id on tokio's blocking threads.
pub struct Argon2id {
    argon2: Argon2<'static>,
    entropy: Arc<dyn Entropy>,
    /// One for each processor: more would only take turns, and each holds its working memory.
    permits: Semaphore,
    waiting: Semaphore,
    /// Compared with when there is no account, so that its absence takes as long.
    nobody: String,
}

impl Argon2id {
    /// A hasher with these costs: working memory in KiB, and passes over it.
    ///
    /// # Errors
    /// The costs are out of argon2's range.
    pub fn new(
        memory_kib: u32,
        passes: u32,
        at_once: usize,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, argon2::Error> {
        let argon2 =
            Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(memory_kib, passes, 1, None)?);
        let nobody = hash(&argon2, "", &[0; SALT_BYTES]).map_err(|_| argon2::Error::OutputTooShort)?;
        let (permits, waiting) = (Semaphore::new(at_once.max(1)), Semaphore::new(WAITING_MAX));
        Ok(Self { argon2, entropy, permits, waiting, nobody })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Argon2<'static>) -> T + Send + 'static,
    ) -> Result<T, HashError> {
        let _place = self.waiting.try_acquire().map_err(|_| HashError::Overloaded)?;
        let _permit = self.permits.acquire().await.map_err(|_| HashError::Failed)?;
        let argon2 = self.argon2.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "the real implementation of the seam; its work is bounded"
        )]
        let done = tokio::task::spawn_blocking(move || work(&argon2)).await;
        done.map_err(|_| HashError::Failed)
    }
}

fn hash(argon2: &Argon2<'_>, password: &str, salt: &[u8]) -> Result<String, HashError> {
    let hash: PasswordHash =
        argon2.hash_password_with_salt(password.as_bytes(), salt).map_err(|_| HashError::Failed)?;
    Ok(hash.to_string())
}

#[async_trait]
impl Passwords for Argon2id {
    async fn hash(&self, password: &str) -> Result<String, HashError> {
        let mut salt = [0; SALT_BYTES];
        self.entropy.fill(&mut salt);
        let password = password.to_owned();
        self.run(move |argon2| hash(argon2, &password, &salt)).await?
    }

    async fn verify(&self, password: &str, hash: Option<&str>) -> Result<bool, HashError> {
        let known = hash.is_some();
        let (password, hash) = (password.to_owned(), hash.unwrap_or(&self.nobody).to_owned());
        self.run(move |argon2| {
            let hash = PasswordHash::new(&hash).map_err(|_| HashError::Failed)?;
            Ok(argon2.verify_password(password.as_bytes(), &hash).is_ok() && known)
        })
        .await?
    }
}

const SALT_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use protocol::clock::SystemEntropy;

    use super::*;

    #[tokio::test]
    async fn what_was_hashed_is_verified() {
        let passwords = Argon2id::new(64, 1, 1, Arc::new(SystemEntropy)).unwrap();
        let hash = passwords.hash("asuna").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{hash}");
        assert_ne!(passwords.hash("asuna").await.unwrap(), hash, "each has its own salt");
        assert_eq!(passwords.verify("asuna", Some(&hash)).await, Ok(true));
        assert_eq!(passwords.verify("pina", Some(&hash)).await, Ok(false));
        assert_eq!(passwords.verify("", None).await, Ok(false));
        assert_eq!(passwords.verify("x", Some("nonsense")).await, Err(HashError::Failed));
    }
}
