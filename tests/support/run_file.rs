//! The small run of tests: two shards, a few stages of each kind, a model of a few hundred numbers.
//!
//! A test names the values in which its run differs. Used by the integration tests and, by path, by unit tests of
//! several crates.

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

/// The run file with these values, as in `("rollout.prompts", "2")`. Keys and sections that it lacks are added at the
/// end of their section and of the file; the parser of runs refuses unknown ones.
pub(crate) fn run_file(changes: &[(&str, &str)]) -> String {
    let mut sections = vec![("", vec![])];
    for line in SMALL.lines() {
        if let Some(name) = line.strip_prefix('[') {
            sections.push((name.trim_end_matches(']'), vec![]));
        } else if let (Some(pair), Some((_, keys))) = (line.split_once(" = "), sections.last_mut())
        {
            keys.push(pair);
        }
    }
    for &(path, value) in changes {
        let (section, key) = path.rsplit_once('.').unwrap_or(("", path));
        let index = sections.iter().position(|(name, _)| *name == section);
        let index = index.unwrap_or_else(|| {
            sections.push((section, vec![]));
            sections.len() - 1
        });
        let keys = &mut sections[index].1;
        match keys.iter_mut().find(|(name, _)| *name == key) {
            Some(pair) => pair.1 = value,
            None => keys.push((key, value)),
        }
    }
    let mut lines = vec![];
    for (name, keys) in sections {
        lines.push(if name.is_empty() { String::new() } else { format!("[{name}]") });
        lines.extend(keys.into_iter().map(|(key, value)| format!("{key} = {value}")));
    }
    lines.join("\n") + "\n"
}
