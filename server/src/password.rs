//! Password hashing: argon2id, off the event loop, a bounded number at once.

use std::sync::{Arc, Mutex, PoisonError};

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
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
    /// Whether a hash was made at other costs than a new one would be.
    fn is_outdated(&self, hash: &str) -> bool;
}

/// argon2id on tokio's blocking threads.
pub struct Argon2id {
    params: Params,
    entropy: Arc<dyn Entropy>,
    /// One for each processor: more would only take turns, and each holds its working memory.
    permits: Semaphore,
    /// Working memory that is not in use: kept, since allocators do not give blocks of this size back (measured: 870 MB
    /// resident after 1,000 hashes).
    memory: Arc<Memory>,
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
        let params = Params::new(memory_kib, passes, 1, None)?;
        let memory = Arc::<Memory>::default();
        let mut blocks = memory.take();
        let nobody =
            hash(&params, "", &[0; SALT_BYTES], &mut blocks).map_err(|_| argon2::Error::OutputTooShort)?;
        memory.put(blocks);
        let (permits, waiting) = (Semaphore::new(at_once.max(1)), Semaphore::new(WAITING_MAX));
        Ok(Self { params, entropy, permits, memory, waiting, nobody })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Vec<Block>) -> T + Send + 'static,
    ) -> Result<T, HashError> {
        let _place = self.waiting.try_acquire().map_err(|_| HashError::Overloaded)?;
        let _permit = self.permits.acquire().await.map_err(|_| HashError::Failed)?;
        let memory = Arc::clone(&self.memory);
        #[expect(
            clippy::disallowed_methods,
            reason = "the real implementation of the seam; its work is bounded"
        )]
        let done = tokio::task::spawn_blocking(move || {
            let mut blocks = memory.take();
            let done = work(&mut blocks);
            memory.put(blocks);
            done
        })
        .await;
        done.map_err(|_| HashError::Failed)
    }
}

/// Working memory between hashes: as many pieces as were ever used at once.
#[derive(Default)]
struct Memory(Mutex<Vec<Vec<Block>>>);

impl Memory {
    fn take(&self) -> Vec<Block> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn put(&self, blocks: Vec<Block>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(blocks);
    }
}

/// The argon2id output for a password.
fn output(
    params: &Params,
    version: Version,
    password: &str,
    salt: &[u8],
    blocks: &mut Vec<Block>,
) -> Result<Output, HashError> {
    let argon2 = Argon2::new(Algorithm::Argon2id, version, params.clone());
    blocks.resize(params.block_count(), Block::default());
    let length = params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
    let mut bytes = [0; Output::MAX_LENGTH];
    let bytes = bytes.get_mut(..length).ok_or(HashError::Failed)?;
    argon2
        .hash_password_into_with_memory(password.as_bytes(), salt, bytes, blocks)
        .map_err(|_| HashError::Failed)?;
    Output::new(bytes).map_err(|_| HashError::Failed)
}

fn hash(params: &Params, password: &str, salt: &[u8], blocks: &mut Vec<Block>) -> Result<String, HashError> {
    let version = Version::V0x13;
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.into(),
        version: Some(version.into()),
        params: ParamsString::try_from(params).map_err(|_| HashError::Failed)?,
        salt: Some(Salt::new(salt).map_err(|_| HashError::Failed)?),
        hash: Some(output(params, version, password, salt, blocks)?),
    };
    Ok(hash.to_string())
}

/// Whether the password has this hash, whose own parameters count.
fn matches(password: &str, hash: &str, blocks: &mut Vec<Block>) -> Result<bool, HashError> {
    let hash = PasswordHash::new(hash).map_err(|_| HashError::Failed)?;
    if hash.algorithm != Algorithm::Argon2id.ident() {
        return Err(HashError::Failed);
    }
    let params = Params::try_from(&hash).map_err(|_| HashError::Failed)?;
    let version =
        hash.version.map_or(Ok(Version::V0x13), Version::try_from).map_err(|_| HashError::Failed)?;
    let (salt, expected) = hash.salt.zip(hash.hash).ok_or(HashError::Failed)?;
    // Outputs are compared in constant time.
    Ok(output(&params, version, password, &salt, blocks)? == expected)
}

#[async_trait]
impl Passwords for Argon2id {
    async fn hash(&self, password: &str) -> Result<String, HashError> {
        let mut salt = [0; SALT_BYTES];
        self.entropy.fill(&mut salt);
        let (params, password) = (self.params.clone(), password.to_owned());
        self.run(move |blocks| hash(&params, &password, &salt, blocks)).await?
    }

    async fn verify(&self, password: &str, hash: Option<&str>) -> Result<bool, HashError> {
        let known = hash.is_some();
        let (password, hash) = (password.to_owned(), hash.unwrap_or(&self.nobody).to_owned());
        self.run(move |blocks| Ok(matches(&password, &hash, blocks)? && known)).await?
    }

    fn is_outdated(&self, hash: &str) -> bool {
        let parsed = PasswordHash::new(hash).ok();
        let params = parsed.as_ref().and_then(|hash| Params::try_from(hash).ok());
        let version = parsed.as_ref().and_then(|hash| hash.version);
        let costs = |params: &Params| (params.m_cost(), params.t_cost(), params.p_cost());
        params.as_ref().map(costs) != Some(costs(&self.params)) || version != Some(Version::V0x13.into())
    }
}

const SALT_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use argon2::password_hash::PasswordHasher as _;
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
        // A hash made with other parameters, by the crate's own means.
        let other = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(32, 2, 1, None).unwrap());
        let other: PasswordHash = other.hash_password_with_salt(b"asuna", &[7; 16]).unwrap();
        assert_eq!(passwords.verify("asuna", Some(&other.to_string())).await, Ok(true));
        assert_eq!(passwords.verify("asunb", Some(&other.to_string())).await, Ok(false));
        assert!(!passwords.is_outdated(&hash) && passwords.is_outdated(&other.to_string()));
    }
}
