//! Password hashing: argon2id, off the event loop, a bounded number at once.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
};
use async_trait::async_trait;
use protocol::Entropy;
use thiserror::Error;
use tokio::sync::{Semaphore, oneshot};

use crate::niceness;

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

/// Why there is no hasher.
#[derive(Debug, Error)]
pub enum HasherError {
    /// The costs cannot be used.
    #[error("argon2: {0}")]
    Costs(#[from] argon2::Error),
    /// The system gives no thread.
    #[error("a thread for password hashes: {0}")]
    Thread(#[from] io::Error),
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

/// argon2id on threads of its own, which give way to all others: so whoever makes the node hash without end delays logins, and no chat.
pub struct Argon2id {
    params: Params,
    entropy: Arc<dyn Entropy>,
    /// One for each thread. A job holds its own until it has ended, whether or not anybody still waits for it.
    permits: Arc<Semaphore>,
    /// There is room for as many as there are permits.
    jobs: SyncSender<Job>,
    waiting: Semaphore,
    /// Compared with when there is no account, so that its absence takes as long.
    nobody: String,
}

/// What a thread does with its working memory.
type Job = Box<dyn FnOnce(&mut Vec<Block>) + Send>;

impl Argon2id {
    /// A hasher with these costs: working memory in KiB, and passes over it. `at_once` is less than there are processors: each that is
    /// under way has one of them, and holds its working memory.
    ///
    /// # Errors
    /// The costs are out of argon2's range, or the system gives no threads.
    pub fn new(
        memory_kib: u32,
        passes: u32,
        at_once: usize,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, HasherError> {
        let params = Params::new(memory_kib, passes, 1, None)?;
        let nobody = hash(&params, "", &[0; SALT_BYTES], &mut Vec::new())
            .map_err(|_| argon2::Error::OutputTooShort)?;
        let at_once = at_once.max(1);
        let (jobs, queue) = sync_channel::<Job>(at_once);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..at_once {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new().name("password".into()).spawn(move || work(&queue))?;
        }
        let (permits, waiting) = (Arc::new(Semaphore::new(at_once)), Semaphore::new(WAITING_MAX));
        Ok(Self { params, entropy, permits, jobs, waiting, nobody })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Vec<Block>) -> T + Send + 'static,
    ) -> Result<T, HashError> {
        let _place = self.waiting.try_acquire().map_err(|_| HashError::Overloaded)?;
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| HashError::Failed)?;
        let (done, outcome) = oneshot::channel();
        let job = Box::new(move |blocks: &mut Vec<Block>| {
            // Nobody may wait for it any more.
            let _ = done.send(work(blocks));
            drop(permit);
        });
        self.jobs.try_send(job).map_err(|_| HashError::Failed)?;
        outcome.await.map_err(|_| HashError::Failed)
    }
}

/// Does jobs until the hasher is gone. The working memory is kept between them, since allocators do not give blocks of this size back
/// (measured: 870 MB resident after 1,000 hashes).
fn work(queue: &Mutex<Receiver<Job>>) {
    niceness::give_way(niceness::HASHES);
    let mut blocks = Vec::new();
    loop {
        // One thread waits at the queue, the others for their turn to.
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A panic is a defect, and ends the request that met it; the thread is there for all.
        let _ = catch_unwind(AssertUnwindSafe(|| job(&mut blocks)));
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
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use argon2::password_hash::PasswordHasher as _;
    use protocol::clock::SystemEntropy;

    use super::*;

    /// Who gives up waiting frees no thread: as many hashes as threads are computed at once, and hold memory.
    #[tokio::test]
    async fn no_more_at_once_than_there_are_threads() {
        let passwords = Argon2id::new(64, 1, 2, Arc::new(SystemEntropy)).unwrap();
        let running = Arc::new(AtomicUsize::new(0));
        let (release, released) = sync_channel::<()>(100);
        let released = Arc::new(Mutex::new(released));
        for _ in 0..6 {
            let (running, released) = (Arc::clone(&running), Arc::clone(&released));
            let mut job = Box::pin(passwords.run(move |_| {
                running.fetch_add(1, Relaxed);
                let _ = released.lock().unwrap().recv();
            }));
            assert!(futures_util::poll!(&mut job).is_pending());
        }
        while running.load(Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        let mut waits = Box::pin(passwords.run(|_| ()));
        assert!(futures_util::poll!(&mut waits).is_pending());
        assert_eq!(running.load(Relaxed), 2, "of six that were given up");
        release.send(()).unwrap();
        waits.await.unwrap();
        release.send(()).unwrap();
    }

    /// The scheduler's own word for each thread.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn hashing_gives_way() {
        let passwords = Argon2id::new(64, 1, 1, Arc::new(SystemEntropy)).unwrap();
        let here = || niceness::tests::of("/proc/thread-self".as_ref());
        let own = here();
        let hashing = passwords.run(move |_| here()).await.unwrap();
        assert_eq!(hashing, (own + niceness::HASHES).min(19));
        assert_eq!(here(), own, "only those threads");
    }

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
