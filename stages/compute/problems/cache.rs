//! The problem cache: what the last stages of a process read of datasets and tokenizers, by content.
//!
//! Every stage of a run would read and render the same rows, and parse the same tokenizer. Keys are digests of the
//! files and what is asked of them, so a stage gives the same bytes with and without the cache. Keeps a few of each,
//! and drops the least recently used.

use std::sync::{Arc, Mutex, PoisonError};

use agrpo_spec::{Inputs, Language, Task};

use super::{rows::tokenizer, source::Problems};
use crate::error::Result;
use crate::text::chat::ChatTokenizer;

/// Datasets, and tokenizers, of a process at most: those that two runs train and evaluate on.
const MOST: usize = 4;

/// Values by what they were made from; the last one used comes last.
#[derive(Debug)]
struct Recent<K, V>(Mutex<Vec<(K, Arc<V>)>>);

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: PartialEq, V> Recent<K, V> {
    /// The value of a key, made unless it is kept. Concurrent callers wait: most of them want the same one.
    fn get(&self, key: K, make: impl FnOnce() -> Result<V>) -> Result<Arc<V>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = match kept.iter().position(|(found, _)| *found == key) {
            Some(place) => kept.remove(place),
            None => (key, Arc::new(make()?)),
        };
        let value = Arc::clone(&entry.1);
        kept.push(entry);
        if kept.len() > MOST {
            kept.remove(0);
        }
        Ok(value)
    }

    fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
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
        let tokenizers = cache.tokenizers.0.lock().unwrap();
        let counts: Vec<_> = tokenizers.iter().map(|(_, one)| Arc::strong_count(one)).collect();
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

    #[test]
    fn what_could_not_be_made_is_not_kept() {
        let recent: Recent<u8, u8> = Recent::default();
        assert!(recent.get(1, || Err(data("unreadable"))).is_err());
        assert_eq!(*recent.get(1, || Ok(7)).unwrap(), 7);
    }
}
