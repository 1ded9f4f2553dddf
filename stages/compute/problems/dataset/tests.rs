//! Problems of a dataset's rows do not depend on the order of the calls.

use agrpo_spec::{Artifact, ArtifactDigest};
use bytes::Bytes;

use super::*;

fn task(prompt: &str, prompt_tokens: u32) -> DatasetTask {
    DatasetTask {
        train: ArtifactDigest::of(b"train"),
        test: ArtifactDigest::of(b"test"),
        prompt: prompt.to_owned(),
        answer: Some("{{ word | list | sort | join }}".to_owned()),
        system: None,
        seed: 0,
        prompt_tokens,
    }
}

fn opened(task: &DatasetTask, train: &str, test: &str) -> Result<DatasetProblems, String> {
    let mut inputs = Inputs::default();
    for (digest, text) in [(task.train, train), (task.test, test)] {
        let bytes = Bytes::from(text.to_owned());
        inputs.insert(digest, Artifact::Blob(bytes.into()));
    }
    DatasetProblems::open(task, None, &inputs).map_err(|error| error.to_string())
}

fn rows(words: &[&str]) -> String {
    words.iter().map(|word| format!("{{\"word\": \"{word}\"}}\n")).collect()
}

#[test]
fn the_vocabulary_is_that_of_both_files_in_any_order() {
    let task = task("{{ word }}?", 6);
    let one = opened(&task, &rows(&["dab", "cab"]), &rows(&["é"])).unwrap();
    let other = opened(&task, &rows(&["cab", "dab"]), &rows(&["é"])).unwrap();
    let tokenizer = one.characters().unwrap();
    assert_eq!(tokenizer.file, other.characters().unwrap().file);
    // Blank, ?, a, b, c, d, é, and the two special tokens.
    assert_eq!(tokenizer.vocabulary, 9);
    assert_eq!(tokenizer.ids(" ?abcdé").unwrap(), [0, 1, 2, 3, 4, 5, 6]);
    assert_ne!(
        tokenizer.file,
        opened(&task, &rows(&["cab"]), &rows(&["é"])).unwrap().characters().unwrap().file
    );
}

#[test]
fn every_row_comes_once_a_pass_and_none_that_is_held_out() {
    let words: Vec<String> = (b'a'..=b'z').map(|letter| char::from(letter).to_string()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let problems = opened(&task("{{ word }}", 3), &rows(&words), &rows(&["c", "d"])).unwrap();
    let pass = |first: u64| -> Vec<String> {
        (first..first + 24).map(|n| problems.training(n).unwrap().shown).collect()
    };
    let (one, two) = (pass(0), pass(24));
    assert_ne!(one, two, "each pass has an order of its own");
    for pass in [&one, &two] {
        let all: BTreeSet<_> = pass.iter().map(String::as_str).collect();
        assert_eq!(all.len(), 24);
        assert!(!all.contains("c") && !all.contains("d"));
    }
    assert_eq!(one, pass(0), "whatever was asked in between");
    assert_eq!(problems.training(5).unwrap().prompt.len(), 3, "padded");
    let (prompt, answer) = problems.example(3).unwrap();
    assert_eq!((prompt.chars().count(), prompt.trim()), (3, answer.as_str()));
    let held_out = problems.held_out(2).unwrap();
    assert_eq!(held_out.iter().map(|asked| asked.shown.as_str()).collect::<Vec<_>>(), ["c", "d"]);
    assert!(problems.held_out(3).unwrap_err().to_string().contains("expected at most 2"));
}

#[test]
fn a_row_that_cannot_be_asked_is_named() {
    let task = task("{{ word }}", 3);
    let refusals = [
        opened(&task, "{\"word\": \"ab\"}\n\n{\"wrd\": 1}\n", &rows(&["a"])).err().unwrap(),
        opened(&task, "{\"word\": \"ab\"\n", &rows(&["a"])).err().unwrap(),
        opened(&task, "{\"word\": \"ab\"}\n{\"word\": null}\n", &rows(&["a"])).err().unwrap(),
        opened(&task, "{\"word\": 1e5}\n", &rows(&["a"])).err().unwrap(),
        opened(&task, "{\"word\": 18446744073709551616}\n", &rows(&["a"])).err().unwrap(),
        opened(&task, "word,word\n1,2\n", &rows(&["a"])).err().unwrap(),
        opened(&task, "version https://git-lfs.github.com/spec/v1\n", &rows(&["a"])).err().unwrap(),
        opened(&task, &rows(&["a"]), &rows(&["a"])).err().unwrap(),
        opened(&task, &rows(&["<|endoftext|>"]), &rows(&["a"])).err().unwrap(),
        opened(&task, &rows(&["abcd"]), &rows(&["a"]))
            .unwrap()
            .check(1, 9)
            .unwrap_err()
            .to_string(),
        opened(&task, &rows(&["abc"]), &rows(&["a"])).unwrap().check(1, 2).unwrap_err().to_string(),
    ];
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    task.dataset.prompt, row 3 of task.dataset.train: no column "word": the row has "wrd"
    task.dataset.train: row 1 cannot be read: EOF while parsing an object at line 1 column 13; expected one JSON object a line
    task.dataset.prompt, row 2 of task.dataset.train: column "word" is null, which is no text: leave the row out, or say what stands for it, as in {{ word | default("none", true) }}
    task.dataset.prompt, row 1 of task.dataset.train: column "word" has 1e5, which would be written differently: save it as text
    task.dataset.train: row 1 cannot be read: column "word": the integer 18446744073709551616 has more than 64 bits: write it as text; expected one JSON object a line
    task.dataset.train: CSV cannot be read: "word" names two columns: expected every name once in the first line
    task.dataset.train is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository, or download the file
    task.dataset.train has no row whose prompt task.dataset.test does not have too
    row 1 of task.dataset.train spells <|endoftext|>, which is a token of its own: leave it out
    task.dataset.prompt_tokens = 3: the prompt of row 1 of task.dataset.train has 4 tokens; raise the key, or leave the row out
    rollout.completion_tokens = 2: the answer of row 1 of task.dataset.train has 3 characters; raise the key, or leave the row out
    "#);
}
