//! The threads that compute inside stages, shared by all stages of a process.
//!
//! A stage counts as one busy thread from its begin to its end. Its parts, micro-batches for example, are computed by
//! its own thread and, while fewer threads are busy than may be, by others beside it. Between two
//! parts they make room for a stage that has begun, and the stage takes others when threads are free again.
//!
//! The number of threads changes no byte: each part is computed alone, and what it gave is joined on the stage's own
//! thread in the order of the parts' numbers. Sums must be made there, and never where parts are computed. Keeps no
//! thread from one call to the next.

use std::any::Any;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::device::use_one_thread;
use crate::error::Result;

/// How many threads compute, and how many of them are busy. Clones share both.
#[derive(Clone, Debug)]
pub struct Threads(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    most: NonZeroUsize,
    busy: AtomicUsize,
}

impl Threads {
    /// At most `count` busy threads, as long as no more stages than that are computed at once.
    pub fn new(count: NonZeroUsize) -> Self {
        Self(Arc::new(Pool { most: count, busy: AtomicUsize::new(0) }))
    }

    /// The most threads that compute.
    pub fn count(&self) -> NonZeroUsize {
        self.0.most
    }

    /// How many are busy.
    #[cfg(test)]
    pub(crate) fn busy(&self) -> usize {
        self.0.busy.load(Ordering::Relaxed)
    }

    /// The caller's thread alone: for GPUs, which compute one pass at a time.
    pub fn one() -> Self {
        Self::new(NonZeroUsize::MIN)
    }

    /// Counts the calling thread as busy until the result is dropped; other stages then leave a thread to it.
    pub(crate) fn begin(&self) -> Busy<'_> {
        self.0.busy.fetch_add(1, Ordering::Relaxed);
        Busy(&self.0.busy)
    }

    /// One more busy thread, unless as many are busy as may be.
    fn take(&self) -> Option<Busy<'_>> {
        let more = |busy| (busy < self.0.most.get()).then_some(busy + 1);
        let taken = self.0.busy.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.ok().map(|_| Busy(&self.0.busy))
    }

    /// Computes the parts `0..count` side by side, and gives the results to `join` in the order of their numbers, on the
    /// calling thread. `state` makes the state of one thread, on the calling thread too: tensors may be sent to
    /// another thread, and not shared with it.
    ///
    /// The error of the lowest number is returned, after the results before it were joined; parts that have not
    /// started then are not computed. A panic counts as the error of its part, and is resumed on the calling thread. All
    /// threads have ended when this returns. At most twice as many parts as threads have started and are not joined.
    ///
    /// Switches of libtorch that belong to a thread are not those of the caller: gradients are recorded, so `compute` holds
    /// its own `no_grad_guard` where it needs one. Operations inside use one thread.
    pub(crate) fn in_order<S: Send, T: Send>(
        &self,
        count: usize,
        mut state: impl FnMut() -> S,
        compute: impl Fn(&mut S, usize) -> Result<T> + Sync,
        mut join: impl FnMut(usize, T) -> Result<()>,
    ) -> Result<()> {
        let (line, most) = (Line::new(count), self.0.most.get());
        let (line, compute) = (&line, &compute);
        thread::scope(|scope| {
            let _end = End(line);
            let mut own = None;
            for number in 0..count {
                let outcome = loop {
                    while line.needs_more(most)
                        && let Some(busy) = self.take()
                    {
                        let state = state();
                        let work = move || beside(line, state, compute, (busy, most));
                        line.lock().threads += 1;
                        // Where the system has no thread to give, those that are there compute.
                        if named().spawn_scoped(scope, work).is_err() {
                            line.lock().threads -= 1;
                            break;
                        }
                    }
                    match line.step(number) {
                        Step::Join(outcome) => break outcome,
                        Step::Compute(part) => {
                            let own = own.get_or_insert_with(&mut state);
                            line.finish(part, caught(|| compute(own, part)));
                        }
                    }
                };
                match outcome {
                    Ok(result) => join(number, result?)?,
                    Err(panic) => resume_unwind(panic),
                }
            }
            Ok(())
        })
    }
}

/// Computes parts beside the calling thread, until there are none, or another stage needs the thread.
fn beside<S, T>(
    line: &Line<T>,
    mut state: S,
    compute: &impl Fn(&mut S, usize) -> Result<T>,
    (busy, most): (Busy<'_>, usize),
) {
    use_one_thread();
    let mut busy = busy.unless_crowded(most);
    while let Some(still) = busy
        && let Some(part) = line.start()
    {
        line.finish(part, caught(|| compute(&mut state, part)));
        busy = still.unless_crowded(most);
    }
    line.lock().threads -= 1;
}

/// A thread that counts as busy.
#[derive(Debug)]
pub(crate) struct Busy<'a>(&'a AtomicUsize);

impl Busy<'_> {
    /// None, and one busy thread less, while more are busy than may be.
    fn unless_crowded(self, most: usize) -> Option<Self> {
        let fewer = |busy| (busy > most).then(|| busy - 1);
        let given_up = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok();
        if given_up {
            // It is counted out already.
            std::mem::forget(self);
            return None;
        }
        Some(self)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a part gave; the error is a panic.
type Outcome<T> = Result<Result<T>, Box<dyn Any + Send>>;

/// A state that a panic left half changed is not used again: no part starts after it.
fn caught<T>(compute: impl FnOnce() -> Result<T>) -> Outcome<T> {
    catch_unwind(AssertUnwindSafe(compute))
}

fn named() -> thread::Builder {
    thread::Builder::new().name("parts".to_owned())
}

/// The parts of one call, in the order of their numbers.
struct Line<T> {
    parts: Mutex<Parts<T>>,
    /// A part was finished or joined, or the rest was given up.
    changed: Condvar,
}

struct Parts<T> {
    count: usize,
    /// The first part that has not started.
    next: usize,
    /// The first part that was not joined.
    unjoined: usize,
    /// How many threads there are, the calling one included.
    threads: usize,
    /// How many of them compute a part.
    working: usize,
    finished: BTreeMap<usize, Outcome<T>>,
}

enum Step<T> {
    Join(Outcome<T>),
    Compute(usize),
}

impl<T> Parts<T> {
    /// Starts the next part, unless too many wait to be joined.
    fn start(&mut self) -> Option<usize> {
        let part = self.next;
        let may_start = part < self.count && part < self.unjoined + 2 * self.threads;
        may_start.then(|| {
            self.next += 1;
            self.working += 1;
            part
        })
    }
}

impl<T> Line<T> {
    fn new(count: usize) -> Self {
        let parts = Parts {
            count,
            next: 0,
            unjoined: 0,
            threads: 1,
            working: 0,
            finished: BTreeMap::new(),
        };
        Self { parts: Mutex::new(parts), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Parts<T>> {
        // Nothing that can panic runs under the lock.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, parts: MutexGuard<'a, Parts<T>>) -> MutexGuard<'a, Parts<T>> {
        self.changed.wait(parts).unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a thread more would find a part that has not started.
    fn needs_more(&self, most: usize) -> bool {
        let parts = self.lock();
        let about_to_start = parts.threads - parts.working;
        parts.threads < most && parts.next + about_to_start < parts.count
    }

    /// What the calling thread does until the part `number` can be joined.
    fn step(&self, number: usize) -> Step<T> {
        let mut parts = self.lock();
        loop {
            if let Some(outcome) = parts.finished.remove(&number) {
                parts.unjoined = number + 1;
                self.changed.notify_all();
                return Step::Join(outcome);
            }
            if let Some(part) = parts.start() {
                return Step::Compute(part);
            }
            parts = self.wait(parts);
        }
    }

    /// The next part for a thread beside the calling one; waits while too many wait to be joined.
    fn start(&self) -> Option<usize> {
        let mut parts = self.lock();
        loop {
            if parts.next == parts.count {
                return None;
            }
            if let Some(part) = parts.start() {
                return Some(part);
            }
            parts = self.wait(parts);
        }
    }

    /// After an error or a panic no more parts start. Those before it have started: they start in order.
    fn finish(&self, part: usize, outcome: Outcome<T>) {
        let failed = !matches!(outcome, Ok(Ok(_)));
        let mut parts = self.lock();
        parts.finished.insert(part, outcome);
        parts.working -= 1;
        if failed {
            parts.next = parts.count;
        }
        drop(parts);
        self.changed.notify_all();
    }
}

/// Ends the line on every way out, so that no thread waits for a result that will not be joined.
struct End<'a, T>(&'a Line<T>);

impl<T> Drop for End<'_, T> {
    fn drop(&mut self) {
        let mut parts = self.0.lock();
        parts.next = parts.count;
        drop(parts);
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
