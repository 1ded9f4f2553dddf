//! The consumer over a real queue: which hints it releases, and how it ends.

use agrpo_spec::{Numerics, StageKey, StageKind};
use agrpo_store::Versions;

use super::*;
use crate::coordination::redis::Fleet;
use crate::testing::RedisServer;

/// A queue with one hint.
async fn queue(server: &RedisServer) -> Queue {
    let fleet = Fleet::connect(&server.url()).await.unwrap();
    let queue = Queue::new(&fleet, Numerics::CpuPortable, &Versions::own());
    let name = "1".repeat(64);
    let key = StageKey::new(StageKind::Rollout, 1, 0);
    queue.offer(name.parse().unwrap(), [(key, name.parse().unwrap())]).await.unwrap();
    queue
}

/// Asks after `delay`.
fn asking(queue: &Queue, delay: Duration) -> impl FnMut() -> Question + Send + 'static {
    let queue = queue.clone();
    move || {
        let queue = queue.clone();
        async move {
            sleep(delay).await;
            queue.take().await
        }
        .boxed()
    }
}

const POLL: Duration = Duration::from_millis(20);

#[tokio::test]
async fn a_hint_that_is_not_processed_is_released_and_taken_again() {
    let server = RedisServer::start(&[]);
    let queue = queue(&server).await;
    let (work, mut deliveries) = mpsc::channel::<Delivery>(1);
    let (ended, ending) = oneshot::channel::<()>();
    let dealing = async {
        let first = deliveries.recv().await.unwrap();
        let hint = first.hint;
        drop(first);
        let second = deliveries.recv().await.unwrap();
        assert_eq!(second.hint, hint);
        ended.send(()).unwrap();
        sleep(POLL).await;
        // The hint in progress is waited for.
        second.done.send(()).unwrap();
    };
    let ask = asking(&queue, Duration::ZERO);
    let consumed = consume(&queue, "w", POLL, ask, work, ending.map(drop));
    let (consumed, ()) = tokio::join!(consumed, dealing);
    consumed.unwrap();
    assert_eq!(queue.waiting().await.unwrap(), 0);
}

#[tokio::test]
async fn a_hint_of_a_pending_request_is_released_at_the_end() {
    let server = RedisServer::start(&[]);
    let queue = queue(&server).await;
    let (work, _deliveries) = mpsc::channel(1);
    let ask = asking(&queue, POLL * 10);
    consume(&queue, "w", POLL, ask, work, sleep(POLL)).await.unwrap();
    assert_eq!(queue.waiting().await.unwrap(), 1);
}

#[tokio::test]
async fn an_error_of_the_queue_ends_the_consumer_and_keeps_its_type() {
    let server = RedisServer::start(&[]);
    let queue = queue(&server).await;
    let (work, _deliveries) = mpsc::channel(1);
    let refused = JobsError::Invalid("refused".into());
    let ask = move || futures::future::ready(Err(refused.clone())).boxed();
    let consumed = consume(&queue, "w", POLL, ask, work, std::future::pending()).await;
    assert!(matches!(consumed, Err(JobsError::Invalid(_))), "{consumed:?}");
}
