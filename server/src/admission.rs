//! Admission to what is dear: so many at once, the others in the order of their coming, and for a limited time.
//!
//! Without it a storm of logins over a slow store makes no progress: all share the store, none is done before its client gives up,
//! and all begin anew.

use std::time::Duration;

use protocol::ErrorCode;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Who may begin.
pub struct Admission {
    places: Semaphore,
    patience: Duration,
    closing: CancellationToken,
}

impl Admission {
    /// `places` at once (at least one); who has waited for `patience` is refused, and everyone who waits when `closing` is cancelled.
    pub fn new(places: usize, patience: Duration, closing: CancellationToken) -> Self {
        Self { places: Semaphore::new(places.max(1)), patience, closing }
    }

    /// Waits for a place; it is free again when the permit is dropped.
    ///
    /// # Errors
    /// `overloaded` after the time for waiting, `going_away` when it is over.
    pub async fn enter(&self) -> Result<SemaphorePermit<'_>, ErrorCode> {
        let entering = self.closing.run_until_cancelled(self.places.acquire());
        match timeout(self.patience, entering).await {
            Ok(Some(Ok(permit))) => Ok(permit),
            Ok(_) => Err(ErrorCode::GoingAway),
            Err(_) => Err(ErrorCode::Overloaded),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(15);

    #[tokio::test(start_paused = true)]
    async fn others_wait_in_the_order_of_their_coming() {
        let admission = Admission::new(1, PATIENCE, CancellationToken::new());
        let first = admission.enter().await.unwrap();
        let (mut second, mut third) = (Box::pin(admission.enter()), Box::pin(admission.enter()));
        assert!(futures_util::poll!(&mut second).is_pending());
        assert!(futures_util::poll!(&mut third).is_pending());
        drop(first);
        let second = second.await.unwrap();
        assert!(futures_util::poll!(&mut third).is_pending());
        drop(second);
        let _third = third.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_is_said() {
        let admission = Admission::new(1, PATIENCE, CancellationToken::new());
        let _first = admission.enter().await.unwrap();
        let begun = tokio::time::Instant::now();
        assert_eq!(admission.enter().await.unwrap_err(), ErrorCode::Overloaded);
        assert_eq!(begun.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_nobody_waits() {
        let closing = CancellationToken::new();
        let admission = Admission::new(1, PATIENCE, closing.clone());
        let _first = admission.enter().await.unwrap();
        let waiting = admission.enter();
        closing.cancel();
        assert_eq!(waiting.await.unwrap_err(), ErrorCode::GoingAway);
    }
}
