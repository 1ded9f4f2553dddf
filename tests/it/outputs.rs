//! The answers of the verbs to a pipe: whole text without colour.
//!
//! Times, dates, sizes of records that hold times, and what names this machine are replaced. Digests are
//! not: the tiny run's results are the same everywhere.

use std::path::Path;

use insta::assert_snapshot;
use regex::Regex;

use crate::cli::{Said, agrpo, with_a_run};

/// The answer of a verb to a pipe; it has to succeed and to be without colours.
fn answer(folder: &Path, arguments: &[&str]) -> String {
    let Said { code, stdout: mut text, stderr } = agrpo(folder, arguments, "");
    assert_eq!(code, Some(0), "{arguments:?}: {stderr}");
    assert!(!text.contains('\u{1b}') && !stderr.contains('\u{1b}'), "{arguments:?} is coloured");
    for (pattern, with) in [
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC by \S+", "[date] by [worker]"),
        (r"(?m)^          on .*$", "          on [machine]"),
        (r"(?m)^          agrpo .*$", "          agrpo [version]"),
        (r"(?m)^took .*$", "took      [times]"),
        (r"(?m)^seconds .*$", "seconds   [times]"),
        (r"\d+(\.\d+)? (ms|s)\b", "[time]"),
        (r"\d+(\.\d+)? kB\b", "[size]"),
    ] {
        text = Regex::new(pattern).unwrap().replace_all(&text, with).into_owned();
    }
    text
}

/// The first digest of a stage of the run, by its key.
fn stage(folder: &Path, key: &str) -> String {
    let run = agrpo(folder, &["show", "tiny", "--json"], "").stdout;
    let run: serde_json::Value = serde_json::from_str(&run).unwrap();
    run["stages"][key].as_str().unwrap().to_owned()
}

#[test]
fn what_is_shown_of_a_run_and_its_parts() {
    let (folder, _) = with_a_run();
    let folder = folder.path();
    let run = answer(folder, &["show", "tiny"]);
    assert_snapshot!(run.lines().filter(|line| line.starts_with('#')).collect::<Vec<_>>().join("\n"), @r"
    # run 5cff052ac40874f1a5d1fc3c001fecc3209ad9fa05ddcf44fdd7b45899addccb
    # 7 of 7 stages are done
    #   sft-000000          25213ca73ed4dea15512be2f6b40bf3d18857e0ac17f4d1bdff0c44ca6f9cd9b
    #   evaluation-000000   88cd1178748b8daccfd43b95a5f7308b71647c868a9ae0355f2af25342f6e4f5
    #   rollout-000001-00   18c72d6837d507f1a451da52b5e5cd26da9862c4ac84bd3086029f4c57e82aa2
    #   reward-000001-00    363955e0e8b9b051c86b25e7b6354b6a62de7bafc1fe48e4e92a60f610f9f0fd
    #   gradient-000001-00  7ab0c6287ad9f43e90938da136e31305aa7a905efd6e53c744687dab7c45122d
    #   update-000001       611aded5cd7da410f7770362224cecf507ea52184fdc7127989332666bf2677b
    #   evaluation-000001   5daa1d88fab39acbd508029af459f8acbc5ec3cf478ee7e8045448917bb66362
    ");
    let rollout = answer(folder, &["show", &stage(folder, "rollout-000001-00")]);
    assert_snapshot!(rollout.split("\nspec:").next().unwrap(), @r"
    stage     18c72d6837d507f1a451da52b5e5cd26da9862c4ac84bd3086029f4c57e82aa2
    kind      rollout, version 4
    numerics  cpu-portable
    inputs    32e70119a2ab7ed3d3f2aa50bb283f6f0bbf24805bd48f0fc2bc94ad6699d404  policy
    outputs   e73831894ba34cb47daf0c0ac9a662ec3cfb40a984c90c6b6396ed641fba0f9c  trajectories, [size]
    metrics   entropy 3.0879615768790245
              passes 8
              tokens 32
    made      [date] by [worker]
              on [machine]
              agrpo [version]
    took      [times]
    ");
    assert_snapshot!(rollout.split("completions").last().unwrap(), @r#"
    (the first 4):
     "1,7,1:7"  "-*18,31"
     "1,7,1:7"  ",72-*537"
     "5,3,8:16"  "+=25:860"
     "5,3,8:16"  ":04().:,"
    "#);
    let update = answer(folder, &["show", &stage(folder, "update-000001")]);
    assert_snapshot!(update.split("\nspec:").next().unwrap(), @r"
    stage     611aded5cd7da410f7770362224cecf507ea52184fdc7127989332666bf2677b
    kind      update, version 3
    numerics  cpu-portable
    inputs    32e70119a2ab7ed3d3f2aa50bb283f6f0bbf24805bd48f0fc2bc94ad6699d404  policy
              2ea8a83f7ddfba20b0cf09c0b55f03e1ae0d2690522c3c9cf527dbfeff3d8fb7  gradient
    outputs   d596019419bd312720e200ad84473bb4418ea71da5dbdded17e049ea6cb921c6  optimizer, [size]
              a08315f775d9e8a81196c20cd952f63b22bc52292911433c1328adf517480233  policy, 332 B
              36064b5e3e0ef94303b243d86c5f22a30e6540586dc6d72ebdd996136936ae69  policy/config.json, [size]
              796ed633a63137c86ca4dd9c4f0f78796172adc329377ad22d3e62f244ccd9fd  policy/model.safetensors, [size]
              101f7ed9b3b5ddfb25ba1af5b65ec88982a92d24364092f37c95b481191a9e9a  policy/tokenizer.json, [size]
    metrics   grad_norm 0
              learning_rate 0.001
    made      [date] by [worker]
              on [machine]
              agrpo [version]
    took      [times]
    ");
}

#[test]
fn what_is_shown_of_an_evaluation() {
    let (folder, _) = with_a_run();
    let folder = folder.path();
    let evaluation = answer(folder, &["show", &stage(folder, "evaluation-000001")]);
    assert_snapshot!(evaluation.split("\nspec:").next().unwrap(), @r"
    stage     5daa1d88fab39acbd508029af459f8acbc5ec3cf478ee7e8045448917bb66362
    kind      evaluation, version 4
    numerics  cpu-portable
    inputs    a08315f775d9e8a81196c20cd952f63b22bc52292911433c1328adf517480233  policy
    outputs   41efbaa09778b58dbce5f5444ba3e7444d7b5f216298d5a0079d832fda59d9e9  evaluation, 613 B
    metrics   accuracy 0
              accuracy_8 0
              passes 8
              passes_8 8
              problems 4
    made      [date] by [worker]
              on [machine]
              agrpo [version]
    took      [times]
    ");
}

#[test]
fn what_a_run_says_that_is_done() {
    let (folder, _) = with_a_run();
    let folder = folder.path();
    assert_snapshot!(answer(folder, &["run", "tiny.toml"]), @r"
    run       5cff052ac40874f1a5d1fc3c001fecc3209ad9fa05ddcf44fdd7b45899addccb
    state     done: iteration 1 of 1, 0 stages computed, 7 reused
    policy    a08315f775d9e8a81196c20cd952f63b22bc52292911433c1328adf517480233
    accuracy  0.0% (0 of 4) -> 0.0% (0 of 4)
    seconds   [times]

    next:
      agrpo status
      agrpo show 5cff052ac408
    ");
    assert_snapshot!(answer(folder, &["replay", &stage(folder, "reward-000001-00")]), @r"
    reward 363955e0e8b9b051c86b25e7b6354b6a62de7bafc1fe48e4e92a60f610f9f0fd
      identical  rewards  d94b988ac97b0ba87fb6a006dd1760b03ddaada9cf5c94a7afc279de969f05c7
    identical
    ");
    assert_snapshot!(answer(folder, &["evaluate", "tiny"]), @r"
    tiny (5cff052ac408): 4 held-out problems, greedy

    policy       steps  tokens/step  passes  temperature  accuracy  95 % interval  stage
    base         8      1            8.00    0            0.0%      0.0% to 49.0%  88cd1178748b
    base         4      2            4.00    0            0.0%      0.0% to 49.0%  747aae4d120c
    base         2      4            2.00    0            0.0%      0.0% to 49.0%  5968dbf20347
    base         1      8            1.00    0            0.0%      0.0% to 49.0%  7b5ad1cb22f5
    iteration 1  8      1            8.00    0            0.0%      0.0% to 49.0%  5daa1d88fab3
    iteration 1  4      2            4.00    0            0.0%      0.0% to 49.0%  d325ebc2e35a
    iteration 1  2      4            2.00    0            0.0%      0.0% to 49.0%  44ffe2a7b95b
    iteration 1  1      8            1.00    0            0.0%      0.0% to 49.0%  8842ee0d0960

    the base is right nowhere at 8 steps: nothing to match
    ");
}

#[test]
fn output_of_retention() {
    let (folder, _) = with_a_run();
    let folder = folder.path();
    assert_snapshot!(answer(folder, &["verify", "tiny"]), @r"
    sound    12 objects, [size]
    missing  0
    corrupt  0
    dropped  0 objects, 0 B
    stages   7 of 1 run
    ");
    assert_snapshot!(answer(folder, &["gc", "--dry-run"]), @r"
    nothing    would go
    too young  0 objects, 0 B
    kept       19 objects, [size], which 1 run reaches
    ");
    assert_snapshot!(answer(folder, &["forget", "tiny", "--dry-run"]), @r"
    run 5cff052ac40874f1a5d1fc3c001fecc3209ad9fa05ddcf44fdd7b45899addccb would be forgotten: 11 records
    agrpo gc frees 19 objects, [size]

    next:
      agrpo gc --dry-run
    ");
    for verb in ["pause", "cancel"] {
        let said = answer(folder, &[verb, "tiny"]);
        assert_eq!(said, "run 5cff052ac408: is done already; nothing was changed\n");
    }
    let last = stage(folder, "evaluation-000001");
    let run =
        std::fs::read_dir(folder.join(".agrpo/runs")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(run.join(format!("stages/evaluation-000001.{last}"))).unwrap();
    std::fs::remove_file(folder.join(".agrpo/stages").join(last)).unwrap();
    assert_snapshot!(answer(folder, &["pause", "tiny"]), @r"
    run 5cff052ac408: paused; stages in hand are finished

    next:
      agrpo resume 5cff052ac408
    ");
    assert_snapshot!(answer(folder, &["resume", "tiny"]), @"run 5cff052ac408: resumed");
}

/// What a verb writes for people replaces its own earlier files alone.
#[test]
fn a_file_that_agrpo_did_not_write_is_not_replaced() {
    let (folder, _) = with_a_run();
    let folder = folder.path();
    let pair = "run = \"tiny.toml\"\nseeds = [1]\n[[variant]]\nname = \"a\"\n";
    std::fs::write(folder.join("pair.toml"), pair).unwrap();
    std::fs::create_dir(folder.join("charts")).unwrap();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/llada_tiny");
    for (place, arguments) in [
        ("tiny.toml", &["report", "tiny", "-o", "tiny.toml"][..]),
        ("charts/reward.svg", &["report", "tiny", "-o", "r.html", "--plots", "charts"]),
        ("own.svg", &["evaluate", "tiny", "--plot", "own.svg"]),
        ("own.svg", &["tune", "tiny", "--plot", "own.svg"]),
        ("pair.md", &["compare", "pair.toml"]),
        ("own.json", &["bench-gpu", "--tiny", "--golden", golden, "--output", "own.json"]),
    ] {
        let place = folder.join(place);
        if !place.exists() {
            std::fs::write(&place, "<svg xmlns=\"http://www.w3.org/2000/svg\"/>\n").unwrap();
        }
        let before = std::fs::read(&place).unwrap();
        let said = agrpo(folder, arguments, "");
        assert_eq!(said.code, Some(2), "{arguments:?}: {}", said.stderr);
        assert!(said.stderr.contains(" is there already, and it is no "), "{}", said.stderr);
        assert!(said.stderr.contains("\nhint: move it away, or name "), "{}", said.stderr);
        assert_eq!(std::fs::read(&place).unwrap(), before, "{arguments:?}");
    }
    std::fs::write(folder.join("empty.html"), "").unwrap();
    for report in ["empty.html", "r.html", "r.html"] {
        let said = agrpo(folder, &["report", "tiny", "-o", report, "--plots", "others"], "");
        assert_eq!(said.code, Some(0), "{report}: {}", said.stderr);
    }
}

#[test]
fn the_doctor_looks_at_everything_and_says_how_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let said = agrpo(folder.path(), &["doctor"], "");
    assert!(!said.stdout.contains('\u{1b}'), "{}", said.stdout);
    let names: Vec<&str> =
        said.stdout.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_snapshot!(names.join(" "), @"agrpo libtorch processor cores numerics rows rows gpu cuda disk store redis");
    for class in ["cpu-portable", "cpu-native"] {
        let expected = format!(
            "ok    rows       {class}: in 1320 small shapes no row depends on the rows beside it"
        );
        assert!(said.stdout.contains(&expected), "{}", said.stdout);
    }
    for line in said.stdout.lines() {
        let verdict = line.split_whitespace().next().unwrap();
        assert!(["ok", "note", "bad"].contains(&verdict), "{line}");
    }
}

#[test]
fn a_run_file_to_begin_with() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let first = agrpo(folder, &["init", "mine.toml", "--task", "sudoku", "--seed", "5"], "");
    assert_snapshot!(first.stdout, @r"
    mine.toml: run mine, seed 5

    next:
      agrpo run mine.toml --dry-run
    ");
    let again = agrpo(folder, &["init", "mine.toml"], "");
    assert_snapshot!(format!("{:?}\n{}", again.code, again.stderr), @r"
    Some(2)
    error: cannot write mine.toml: it is there already

    hint: name another file, or write over it with --force
    ");
    assert_eq!(agrpo(folder, &["init", "mine.toml", "--force"], "").code, Some(0));
    let printed = agrpo(folder, &["init", "-", "--name", "mine"], "").stdout;
    assert_eq!(
        printed.replace("run.toml", "mine.toml"),
        std::fs::read_to_string(folder.join("mine.toml")).unwrap()
    );
    for task in ["smoke", "countdown", "sudoku", "gsm8k", "math", "llada-countdown", "llada-sudoku"]
    {
        agrpo(folder, &["init", "any.toml", "--force", "--task", task], "");
        let said = agrpo(folder, &["run", "any.toml", "--dry-run"], "");
        assert_eq!(said.code, Some(0), "{task}: {}", said.stderr);
        assert!(said.stdout.contains("(any, "), "{task}: {}", said.stdout);
    }
}

#[test]
fn typing_mistakes_are_answered_with_what_was_meant() {
    let (folder, _) = with_a_run();
    let folder = folder.path();
    let error = |arguments: &[&str]| {
        let said = agrpo(folder, arguments, "");
        assert_eq!(said.code, Some(2), "{arguments:?}");
        said.stderr
    };
    assert_snapshot!(error(&["status", "tniy"]), @"error: no run in file://[folder]/.agrpo has the name `tniy` or an id that begins with it; did you mean `tiny`? `agrpo status` lists all runs");
    assert_snapshot!(error(&["run", "tiny.toml", "--worker", "1"]), @r"
    error: unexpected argument '--worker' found

      tip: a similar argument exists: '--workers'

    Usage: agrpo run --workers <N> <FILE>

    For more information, try '--help'.
    ");
    assert_snapshot!(error(&["tune", "tiny", "--estimators", "agprpo"]), @r"
    error: invalid value 'agprpo' for '--estimators <LIST>'
      [possible values: agrpo, diffu-grpo, coupled-grpo, merged-step, ar-grpo]

      tip: a similar value exists: 'agrpo'

    For more information, try '--help'.
    ");
    let text = std::fs::read_to_string(folder.join("tiny.toml")).unwrap();
    std::fs::write(folder.join("typo.toml"), text.replace("group = 2", "groups = 2")).unwrap();
    assert_snapshot!(error(&["run", "typo.toml"]), @"error: typo.toml: line 18, `groups = 2`: unknown key `rollout.groups`: did you mean `rollout.group`?");
    std::fs::write(folder.join("typo.toml"), text.replace("[task.countdown]", "[task.countdwn]"))
        .unwrap();
    assert_snapshot!(error(&["run", "typo.toml"]), @"error: typo.toml: line 4, `[task.countdwn]`: unknown section `task.countdwn`: did you mean `countdown`? expected one of countdown, sudoku, benchmark, dataset");
}

#[test]
fn what_is_suggested_can_be_pasted() {
    let folder = tempfile::tempdir().unwrap();
    let file = "it's $(touch hurt) `touch hurt` & a b.toml";
    let said = agrpo(folder.path(), &["init", file, "--name", "mine"], "");
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let command = said.stdout.lines().last().unwrap();
    let shell = format!("set -- {command}; printf %s \"$3\"");
    let mut bash = std::process::Command::new("bash");
    let taken = bash.args(["-c", &shell]).current_dir(folder.path()).output().unwrap();
    assert_eq!(String::from_utf8(taken.stdout).unwrap(), file, "{command}");
    assert!(!folder.path().join("hurt").exists());
}
