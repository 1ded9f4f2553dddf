//! The consumer: a worker of apalis that takes hints one at a time. The only file that names apalis.
//!
//! apalis 1.0.0 polls a backend for a task only when its handler is free, finishes the task in progress when it is
//! stopped, and closes the backend before it returns. The backend here is our queue, so errors keep their type. It
//! waits between two polls by itself: `poll_with_interval` of 1.0.0 sets its next timer without polling it, and an
//! answer that is there at the first poll would leave the worker asleep.

use std::task::{Context, Poll, ready};
use std::{pin::Pin, time::Duration};

use agrpo_store::JobsError;
use apalis::prelude::{Backend, Task, WorkerBuilder, WorkerBuilderExt, WorkerContext, WorkerError};
use apalis_core::backend::{BackendConfig, finalize::Ephemeral};
use apalis_core::layers::Identity;
use futures::{FutureExt, future::BoxFuture};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Sleep, sleep, timeout};

use crate::Result;
use crate::coordination::queue::{Delivery, Hint, Queue};

/// How long a worker that ends waits for an answer of the queue.
const LAST_ANSWER: Duration = Duration::from_secs(3);

/// A request to the queue: the next hint, if there is one.
pub(crate) type Question = BoxFuture<'static, Result<Option<Hint>>>;

struct HintBackend {
    queue: Queue,
    ask: Box<dyn FnMut() -> Question + Send>,
    /// The pause after an answer without a hint.
    poll: Duration,
    asked: Option<Question>,
    pause: Option<Pin<Box<Sleep>>>,
    closing: Option<BoxFuture<'static, ()>>,
}

impl Backend for HintBackend {
    type Task = Task<Hint>;
    type Error = JobsError;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Option<Result<Task<Hint>>>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.poll_unpin(cx));
                self.pause = None;
            }
            let answer = ready!(self.asked.get_or_insert_with(&mut self.ask).poll_unpin(cx));
            self.asked = None;
            match answer.transpose() {
                Some(hint) => return Poll::Ready(Some(hint.map(Task::new))),
                None => self.pause = Some(Box::pin(sleep(self.poll))),
            }
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<()>> {
        let (asked, queue) = (self.asked.take(), &self.queue);
        let close = || match asked {
            Some(asked) => release(queue.clone(), asked).boxed(),
            None => std::future::ready(()).boxed(),
        };
        self.closing.get_or_insert_with(close).poll_unpin(cx).map(Ok)
    }
}

impl BackendConfig for HintBackend {
    type Args = Hint;
    type Id = ();
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Identity;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> Identity {
        Identity::new()
    }
}

/// Releases a hint that was not processed, or that the pending request takes. If the queue does not answer, the
/// reconciler offers the stage again.
async fn release(queue: Queue, taken: impl Future<Output = Result<Option<Hint>>>) {
    let released = async {
        match taken.await? {
            Some(hint) => queue.release(hint).await,
            None => Ok(()),
        }
    };
    if !matches!(timeout(LAST_ANSWER, released).await, Ok(Ok(()))) {
        tracing::debug!("cannot release a hint to the queue");
    }
}

/// Sends hints to `work`, one at a time, until `ending` resolves; then waits for the last one. An error of `ask` ends
/// the consumer.
pub(crate) async fn consume(
    queue: &Queue,
    worker: &str,
    poll: Duration,
    ask: impl FnMut() -> Question + Send + 'static,
    work: mpsc::Sender<Delivery>,
    ending: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let backend = HintBackend {
        queue: queue.clone(),
        ask: Box::new(ask),
        poll,
        asked: None,
        pause: None,
        closing: None,
    };
    let queue = queue.clone();
    let handle = move |hint: Hint| {
        let (queue, work) = (queue.clone(), work.clone());
        async move {
            let (done, dealt_with) = oneshot::channel();
            let sent = work.send(Delivery { hint, done }).await.is_ok();
            if !sent || dealt_with.await.is_err() {
                release(queue, std::future::ready(Ok(Some(hint)))).await;
            }
            Ok::<(), JobsError>(())
        }
    };
    let consumed = WorkerBuilder::new(worker)
        .backend(backend)
        .concurrency(1)
        .build(handle)
        .run_until(ending.map(Ok::<(), WorkerError>))
        .await;
    match consumed {
        Ok(()) => Ok(()),
        Err(WorkerError::BackendError(error)) => Err(match error.downcast() {
            Ok(error) => *error,
            Err(error) => JobsError::internal(format!("the consumer ended: {error}")),
        }),
        Err(error) => Err(JobsError::internal(format!("the consumer ended: {error}"))),
    }
}

#[cfg(test)]
mod tests;
