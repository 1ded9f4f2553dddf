//! Comparison files that are read, and those that are refused, each with its line of error.

use super::*;

const FILE: &str = r#"# About
# this.
run = "run.toml"
seeds = [1, 2]
set.evaluation.problems = 30
[[variant]]
name = "a"
set.estimator.k = 2
[[variant]]
name = "b"
set.rollout.prompts = 16
"#;

fn run_file(name: &str) -> String {
    let runs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../jobs/runs");
    std::fs::read_to_string(Path::new(runs).join(name)).unwrap()
}

fn read(text: &str) -> Result<Comparison, Invalid> {
    let base = Base::parse(&run_file("smoke.toml"))?;
    Comparison::new(Path::new("/folder/c.toml"), ComparisonFile::parse(text)?, &base)
}

/// The error of the file with one line changed.
fn error(from: &str, to: &str) -> String {
    assert!(FILE.contains(from), "{from}");
    read(&FILE.replace(from, to)).unwrap_err().to_string()
}

#[test]
fn changes_reach_single_keys() {
    let mut table: Table = toml::from_str("a = 1\n[b]\nc = 2\nd = 3").unwrap();
    overlay(&mut table, &toml::from_str("b.c = 4\ne.f = 5").unwrap());
    let expected: Table = toml::from_str("a = 1\nb = { c = 4, d = 3 }\ne.f = 5").unwrap();
    assert_eq!(table, expected);
}

#[test]
fn every_variant_runs_with_every_seed() {
    let comparison = read(FILE).unwrap();
    assert_eq!((comparison.name.as_str(), comparison.file.as_str()), ("c", "c.toml"));
    assert_eq!(comparison.about, "About\nthis.");
    let member = |member: &Member| (member.variant.clone(), member.run.config().seed);
    let members: Vec<_> = comparison.members.iter().map(member).collect();
    let expected = [("a", 1), ("b", 1), ("a", 2), ("b", 2)];
    assert_eq!(members, expected.map(|(name, seed)| (name.to_owned(), seed)));
    let config = comparison.members[1].run.config();
    assert_eq!((config.rollout.prompts, config.evaluation.problems), (16, 30));
    assert!(config.name.ends_with("-b"), "{}", config.name);
}

#[test]
fn the_comparisons_of_the_repository_are_read() {
    for name in ["countdown", "sudoku"] {
        let path = format!("compare/{name}.toml");
        let file = ComparisonFile::parse(&run_file(&path)).unwrap();
        let base = run_file(&format!("compare/{}", file.run().display()));
        let base = Base::parse(&base).unwrap();
        let comparison = Comparison::new(Path::new(&path), file, &base).unwrap();
        assert_eq!(comparison.members.len(), comparison.variants.len() * comparison.seeds.len());
    }
}

#[test]
fn what_is_there_twice_is_refused() {
    insta::assert_snapshot!(error(r#"name = "b""#, r#"name = "a""#), @"two variants have the name `a`, expected different names");
    insta::assert_snapshot!(error("[1, 2]", "[1, 2, 1]"), @"seeds: 1 is there twice, expected different seeds");
    insta::assert_snapshot!(error("[1, 2]", "[]"), @"expected at least one seed and one [[variant]]");
}

#[test]
fn a_seed_stands_in_the_list_alone() {
    insta::assert_snapshot!(error("set.evaluation.problems = 30", "set.seed = 9"), @"set.seed = 9: expected no such key; list it in seeds");
    insta::assert_snapshot!(error("set.rollout.prompts = 16", "set.seed = 9"), @"set.seed = 9: expected no such key; list it in seeds");
}

#[test]
fn a_variant_with_another_base_or_another_evaluation_is_refused() {
    let changed = |change: &str| error("set.rollout.prompts = 16", change);
    insta::assert_snapshot!(changed("set.evaluation.steps = [4]"), @"variant b: evaluation differs from the first variant's, expected one base and one evaluation; set it for all above the variants");
    for (change, key) in [
        ("set.evaluation.problems = 20", "evaluation"),
        ("set.evaluation.position = \"random\"", "evaluation"),
        ("set.sft.batch = 64", "sft"),
        ("set.model.d_model = 16", "model"),
        ("set.task.countdown.max_target = 11", "task"),
        ("set.numerics = \"cuda:90\"", "numerics"),
    ] {
        let text = changed(change);
        assert!(text.starts_with(&format!("variant b: {key} differs")), "{change}: {text}");
    }
    let text = FILE.replace("set.rollout.prompts = 16", "set.evaluation.every = 3");
    assert!(read(&text).is_ok(), "how often is no part of what is compared");
}

#[test]
fn errors_name_a_line_of_the_file_or_the_variant() {
    insta::assert_snapshot!(error("seeds = [1, 2]", "seeds = [1, 2]\nvariants = 3"), @"line 5, column 1: unknown key `variants`: did you mean `variant`?");
    insta::assert_snapshot!(error("seeds = [1, 2]", "seeds = [1, "), @"line 5, column 25: unexpected `=` in array, expected value, `]`");
    insta::assert_snapshot!(error("set.estimator.k = 2", "set.estimator.kk = 2"), @"variant a: unknown key `estimator.kk`: did you mean `estimator.k`?");
    insta::assert_snapshot!(error("set.rollout.prompts = 16", "set.rollout.group = 1"), @"variant b: rollout.group = 1: expected 2 to 4096 completions a prompt: a group of one has no spread, so nothing is learned");
}
