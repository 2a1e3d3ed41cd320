//! Questions that callers have at the same time, asked as one: a statement's fixed cost is many times what one more row costs.
//!
//! As the committer's batches, without added delay: what is asked while a statement is under way is the next one. A statement begins after
//! everything that it answers was asked.

use std::time::Duration;

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Result, StoreError};

/// Questions in one statement: so many lists are in memory at once at most, and the longest is waited for by so many. Half of those who
/// may open sessions at a time, so that while some are answered one question, others are asked another.
const BATCH_MAX: usize = 16;
/// Questions that wait. More callers wait for a place.
const WAITING_MAX: usize = 256;
/// How long a caller waits in all. A statement has its own limits, which are half of that.
const PATIENCE: Duration = Duration::from_secs(10);

/// What asks.
#[derive(Default)]
pub(super) struct Tasks {
    tracker: TaskTracker,
    closing: CancellationToken,
}

impl Tasks {
    /// Lets what is under way come to its end, and begins nothing any more.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// A way to ask questions of one kind.
pub(super) struct Together<Q, A> {
    queue: mpsc::Sender<Asked<Q, A>>,
}

struct Asked<Q, A> {
    question: Q,
    answer: oneshot::Sender<Result<A>>,
}

impl<Q: Send + 'static, A: Send + 'static> Together<Q, A> {
    /// Asks by `ask`, which gives one answer for each question, in order; in a task of these, until it is closing.
    pub(super) fn new<F>(tasks: &Tasks, ask: impl Fn(Vec<Q>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<Vec<A>>> + Send + 'static,
    {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        tasks.tracker.spawn(serve(waiting, tasks.closing.clone(), ask));
        Self { queue }
    }

    /// The answer to a question.
    pub(super) async fn ask(&self, question: Q) -> Result<A> {
        let (answer, answered) = oneshot::channel();
        let asking = async {
            let closed = || StoreError::Unavailable("the store is closed".into());
            self.queue.send(Asked { question, answer }).await.map_err(|_| closed())?;
            answered.await.map_err(|_| closed())?
        };
        let late = |_| StoreError::Unavailable("no answer in time".into());
        timeout(PATIENCE, asking).await.map_err(late)?
    }
}

async fn serve<Q, A, F>(
    mut waiting: mpsc::Receiver<Asked<Q, A>>,
    closing: CancellationToken,
    ask: impl Fn(Vec<Q>) -> F,
) where
    F: Future<Output = Result<Vec<A>>>,
{
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while closing.run_until_cancelled(waiting.recv_many(&mut batch, BATCH_MAX)).await.unwrap_or_default() > 0
    {
        // Whoever no longer waits need not be answered.
        let asked = batch.drain(..).filter(|asked| !asked.answer.is_closed());
        let (questions, answers): (Vec<_>, Vec<_>) =
            asked.map(|Asked { question, answer }| (question, answer)).unzip();
        if !questions.is_empty() {
            give(answers, ask(questions).await);
        }
    }
}

/// Gives everyone their answer, or all the same error.
fn give<A>(to: Vec<oneshot::Sender<Result<A>>>, answers: Result<Vec<A>>) {
    let answers = answers.and_then(|answers| {
        let all = answers.len() == to.len();
        all.then_some(answers).ok_or_else(|| StoreError::Corrupt("not as many answers as questions".into()))
    });
    match answers {
        // Who asked may be gone.
        Ok(answers) => to.into_iter().zip(answers).for_each(|(to, answer)| drop(to.send(Ok(answer)))),
        Err(error) => to.into_iter().for_each(|to| drop(to.send(Err(error.clone())))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures_util::future::join_all;

    use super::*;

    type Batches = Arc<Mutex<Vec<Vec<u32>>>>;

    /// A way to ask for a number's double, and what was asked together. Of 13 there is an error, and 14 has no answer.
    fn doubles(pause: Duration) -> (Together<u32, u32>, Batches) {
        let batches = Batches::default();
        let seen = Arc::clone(&batches);
        let together = Together::new(&Tasks::default(), move |numbers: Vec<u32>| {
            seen.lock().unwrap().push(numbers.clone());
            async move {
                tokio::time::sleep(pause).await;
                match numbers.contains(&13) {
                    true => Err(StoreError::Corrupt("13".into())),
                    false => Ok(numbers.into_iter().filter(|n| *n != 14).map(|n| 2 * n).collect()),
                }
            }
        });
        (together, batches)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_meanwhile_is_asked_next() {
        let (together, batches) = doubles(Duration::from_secs(1));
        let answers = join_all((100..130).map(|n| together.ask(n))).await;
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, (100..130).map(|n| 2 * n).collect::<Vec<_>>());
        let batches = batches.lock().unwrap();
        assert_eq!(batches.concat(), (100..130).collect::<Vec<_>>(), "in the order asked");
        assert!(batches.iter().all(|batch| batch.len() <= BATCH_MAX), "{batches:?}");
        assert!(batches.len() <= 3, "{batches:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_everyones() {
        let (together, _) = doubles(Duration::ZERO);
        let answers = join_all([12, 13, 15].map(|n| together.ask(n))).await;
        assert!(answers.iter().all(|answer| matches!(answer, Err(StoreError::Corrupt(_)))), "{answers:?}");
        assert_eq!(together.ask(12).await.unwrap(), 24, "and the next one's is not");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_too_few_is_nobodys() {
        let (together, _) = doubles(Duration::ZERO);
        let answers = join_all([14, 15].map(|n| together.ask(n))).await;
        assert!(answers.iter().all(|answer| matches!(answer, Err(StoreError::Corrupt(_)))), "{answers:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_no_longer_waits_is_not_asked_for() {
        const SHORT: Duration = Duration::from_millis(1);
        let (together, batches) = doubles(Duration::from_secs(1));
        let later = |n: u32| {
            let together = &together;
            async move {
                tokio::time::sleep(n * SHORT).await;
                together.ask(n).await.unwrap()
            }
        };
        let leaves = tokio::time::timeout(10 * SHORT, later(3));
        let (one, two, three, four) = tokio::join!(later(1), later(2), leaves, later(4));
        assert_eq!((one, two, four), (2, 4, 8));
        assert!(three.is_err());
        assert_eq!(*batches.lock().unwrap(), [vec![1], vec![2, 4]]);
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_what_is_under_way_is_answered_and_nothing_else() {
        let tasks = Tasks::default();
        let together = Together::new(&tasks, |numbers: Vec<u32>| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(numbers)
        });
        let (first, second, ()) = tokio::join!(
            together.ask(1),
            async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                together.ask(2).await
            },
            async {
                tokio::time::sleep(Duration::from_millis(2)).await;
                tasks.close().await;
            }
        );
        assert_eq!(first.unwrap(), 1);
        assert!(matches!(second, Err(StoreError::Unavailable(_))), "{second:?}");
        assert!(matches!(together.ask(3).await, Err(StoreError::Unavailable(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_is_said() {
        let (together, _) = doubles(2 * PATIENCE);
        let begun = tokio::time::Instant::now();
        let error = together.ask(1).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert_eq!(begun.elapsed(), PATIENCE);
    }
}
