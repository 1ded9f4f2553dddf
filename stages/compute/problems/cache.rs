//! The problem cache: what the last stages of a process read of datasets and tokenizers, by content.
//!
//! Every stage of a run would read and render the same rows, and parse the same tokenizer. Keys are digests of the
//! files and what is asked of them, so a stage gives the same bytes with and without the cache. Keeps a few of each,
//! and drops the least recently used. A stage waits only for others that read the same files.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agrpo_spec::{Inputs, Language, Task};

use super::{rows::tokenizer, source::Problems};
use crate::error::Result;
use crate::text::chat::ChatTokenizer;

/// Datasets, and tokenizers, of a process at most, beside those that are made: those that two runs train and evaluate on.
const MOST: usize = 4;

/// A value, held while it is made. None before that, and where it could not be made.
type Entry<V> = Arc<Mutex<Option<Arc<V>>>>;

/// Values by what they were made from; the last one used comes last.
#[derive(Debug)]
struct Recent<K, V>(Mutex<Vec<(K, Entry<V>)>>);

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: PartialEq, V> Recent<K, V> {
    /// The value of a key, made unless it is kept. Concurrent callers of the same key wait, those of others do not.
    fn get(&self, key: K, make: impl FnOnce() -> Result<V>) -> Result<Arc<V>> {
        let entry = self.entry(key);
        let mut value = lock(&entry);
        if let Some(value) = &*value {
            return Ok(Arc::clone(value));
        }
        let made = make().map(Arc::new);
        *value = made.as_ref().ok().cloned();
        drop(value);
        self.settle(entry);
        made
    }

    fn entry(&self, key: K) -> Entry<V> {
        let mut kept = lock(&self.0);
        let found = match kept.iter().position(|(found, _)| *found == key) {
            Some(place) => kept.remove(place),
            None => (key, Entry::default()),
        };
        let entry = Arc::clone(&found.1);
        kept.push(found);
        entry
    }

    /// Drops keys without a value that no caller makes or waits for, then those used longest ago. A key whose value cannot
    /// be made takes no place of another.
    fn settle(&self, entry: Entry<V>) {
        let mut kept = lock(&self.0);
        drop(entry);
        // An entry that nothing else holds is not locked.
        kept.retain(|(_, entry)| Arc::strong_count(entry) > 1 || lock(entry).is_some());
        let excess = kept.len().saturating_sub(MOST);
        kept.drain(..excess);
    }

    fn clear(&self) {
        lock(&self.0).clear();
    }
}

/// A panic while a value was made leaves none.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
pub(crate) struct ProblemCache {
    problems: Recent<(Task, Option<Language>), Problems>,
    tokenizers: Recent<Language, ChatTokenizer>,
}

impl ProblemCache {
    /// The problems of a task. What is not kept is read from the inputs.
    pub(crate) fn problems(
        &self,
        task: &Task,
        language: Option<Language>,
        inputs: &Inputs,
    ) -> Result<Arc<Problems>> {
        self.problems.get((task.clone(), language), || {
            let read = |language| self.tokenizers.get(language, || tokenizer(language, inputs));
            Problems::open(task, language.map(read).transpose()?, inputs)
        })
    }

    pub(crate) fn clear(&self) {
        self.problems.clear();
        self.tokenizers.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::{Barrier, mpsc::channel};
    use std::time::Duration;

    use agrpo_spec::{Artifact, ArtifactDigest, DatasetTask};
    use bytes::Bytes;

    use super::*;
    use crate::error::data;
    use crate::text::chat::tests::{bytes, config, file};

    /// A rollout, a reward and an evaluation ask one after the other, of two tasks.
    #[test]
    fn problems_are_read_once_and_share_a_tokenizer() {
        let mut inputs = Inputs::default();
        let mut insert = |content: Vec<u8>| {
            let digest = ArtifactDigest::of(&content);
            inputs.insert(digest, Artifact::Blob(Bytes::from(content).into()));
            digest
        };
        let language = Some(Language {
            config: insert(config().to_json()),
            tokenizer: insert(bytes(&file())),
        });
        let row = |word| format!("{{\"word\": \"{word}\"}}\n").into_bytes();
        let (train, test) = (insert(row("hello")), insert(row("low")));
        let task = |prompt: &str| {
            let (prompt, answer, system) = (prompt.to_owned(), None, None);
            Task::Dataset(DatasetTask {
                train,
                test,
                prompt,
                answer,
                system,
                seed: 0,
                prompt_tokens: 64,
            })
        };
        let (cache, tasks) = (ProblemCache::default(), [task("{{ word }}?"), task("{{ word }}!")]);
        let open = |inputs: &Inputs| {
            tasks.each_ref().map(|task| cache.problems(task, language, inputs).unwrap())
        };
        let first = open(&inputs);
        // There is nothing to read any more.
        let again = open(&Inputs::default());
        assert!(first.iter().zip(&again).all(|(one, other)| Arc::ptr_eq(one, other)));
        let tokenizers = lock(&cache.tokenizers.0);
        let count = |(_, entry): &(_, Entry<_>)| lock(entry).as_ref().map(Arc::strong_count);
        let counts: Vec<_> = tokenizers.iter().filter_map(count).collect();
        assert_eq!(counts, [3], "both tasks stand on one, which the cache holds too");
    }

    #[test]
    fn the_values_used_last_are_kept_and_made_once() {
        let (recent, made) = (Recent::default(), Cell::new(0));
        let get = |key: usize| {
            let make = || {
                made.set(made.get() + 1);
                Ok(key * 10)
            };
            assert_eq!(*recent.get(key, make).unwrap(), key * 10);
            made.get()
        };
        // Two datasets that alternate are made once each.
        let alternating = [0, 1, 0, 1, 0].map(get);
        assert_eq!(alternating, [1, 2, 2, 2, 2]);
        // Two more than there is room for: those used longest ago go.
        assert_eq!((2..MOST + 2).map(get).last(), Some(MOST + 2));
        assert_eq!((2..MOST + 2).map(get).last(), Some(MOST + 2));
        assert_eq!(get(0), MOST + 3);
        assert_eq!(recent.0.lock().unwrap().len(), MOST);
        recent.clear();
        assert_eq!(get(0), MOST + 4);
    }

    /// A large dataset that is read must not hold up the stages of others.
    #[test]
    fn others_are_found_and_made_while_one_is_made() {
        let recent = &Recent::default();
        assert_eq!(*recent.get(1, || Ok(10)).unwrap(), 10);
        std::thread::scope(|threads| {
            let make = || {
                let (sender, others) = channel();
                threads.spawn(move || {
                    let other = |key: usize| *recent.get(key, || Ok(key * 10)).unwrap();
                    sender.send([other(1), other(2)])
                });
                Ok(usize::from(others.recv_timeout(Duration::from_secs(20)) == Ok([10, 20])))
            };
            assert_eq!(*recent.get(0, make).unwrap(), 1, "the others waited");
        });
    }

    /// Concurrent stages of one dataset hold it in memory once.
    #[test]
    fn those_that_want_the_same_share_what_the_first_makes() {
        let (recent, barrier) = (&Recent::default(), &Barrier::new(4));
        let get = || {
            barrier.wait();
            recent.get(0, || Ok(std::thread::current().id())).unwrap()
        };
        std::thread::scope(|threads| {
            let all: Vec<_> = (0..4).map(|_| threads.spawn(get)).collect();
            let all: Vec<_> = all.into_iter().map(|thread| thread.join().unwrap()).collect();
            assert!(all.iter().all(|one| Arc::ptr_eq(one, &all[0])), "{all:?}");
        });
    }

    #[test]
    fn what_could_not_be_made_is_not_kept() {
        let recent: Recent<u8, u8> = Recent::default();
        assert!(recent.get(1, || Err(data("unreadable"))).is_err());
        assert_eq!(*recent.get(1, || Ok(7)).unwrap(), 7);
    }

    #[test]
    fn what_could_not_be_made_drops_nothing() {
        let recent = Recent::default();
        let kept = [0, 1, 2, 3].map(|key| recent.get(key, || Ok(key)).unwrap());
        assert_eq!(kept.len(), MOST);
        for key in 4..9 {
            assert!(recent.get(key, || Err(data("unreadable"))).is_err());
        }
        let again = [0, 1, 2, 3].map(|key| recent.get(key, || Err(data("made again"))).unwrap());
        assert!(kept.iter().zip(&again).all(|(one, other)| Arc::ptr_eq(one, other)));
    }

    /// The one that fails leaves the key to those that wait for it.
    #[test]
    fn what_the_next_caller_makes_is_kept() {
        let recent = &Recent::default();
        let entry = recent.entry(0);
        assert!(recent.get(0, || Err(data("unreadable"))).is_err());
        let made = Arc::new(7);
        *lock(&entry) = Some(Arc::clone(&made));
        drop(entry);
        assert!(Arc::ptr_eq(&recent.get(0, || Ok(8)).unwrap(), &made));
    }
}
