//! The small run of tests: two shards, a few stages of each kind, a model of a few hundred numbers.
//!
//! A test names the values in which its run differs. Used by the integration tests and, by path, by unit tests of several
//! crates. Runs whose results are looked at (`program.rs`) have run files of their own.

const SMALL: &str = r#"
name = "small"
seed = 3
[task.countdown]
[model]
d_model = 8
n_layers = 1
n_heads = 2
mlp_hidden_size = 8
[sft]
steps = 5
batch = 4
steps_per_stage = 2
micro_batch = 4
optimizer = { learning_rate = 1e-3 }
[rollout]
prompts = 4
group = 2
shards = 2
micro_batch = 4
completion_tokens = 8
block_tokens = 8
steps = 8
[estimator]
k = 2
micro_batch = 4
[optimizer]
learning_rate = 1e-4
[training]
iterations = 3
[evaluation]
problems = 4
every = 2
steps = [8, 4]
micro_batch = 4
"#;

/// The run file with these values replaced, as in `("rollout.prompts", "2")`; a key that it lacks is a mistake.
pub(crate) fn run_file(changes: &[(&str, &str)]) -> String {
    let (mut section, mut changed) = (String::new(), 0);
    let mut lines = vec![];
    for line in SMALL.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
        }
        let key = line.split(" = ").next().unwrap_or_default();
        let change = changes.iter().find(|(path, _)| path.strip_prefix(&*section) == Some(key));
        changed += usize::from(change.is_some());
        lines.push(change.map_or_else(|| line.to_owned(), |(_, value)| format!("{key} = {value}")));
    }
    assert_eq!(changed, changes.len(), "a key of {changes:?} is not in the run file");
    lines.join("\n") + "\n"
}
