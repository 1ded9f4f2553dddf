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
    # run 9a4bacb6be8d8156e05d090cb1370012ab35185f97d5ca8969ac204e4f552c58
    # 7 of 7 stages are done
    #   sft-000000          5a2c77c0b4d7cb78e43ea7444bb7ab2fca8c490d6ba4e4db4da4f34e32254155
    #   evaluation-000000   136b79ade66464c1346ba055e74c8991fe21e822d9d1529be46b0f6f0a9571bb
    #   rollout-000001-00   a67ad52e840ef3a160453f9bd8ae57425335d833e8b43c5f7c2729192c418447
    #   reward-000001-00    47e4d83dfb2fe747dd15cd4a4ace243c202a39b6364e1c36bfb50d9904e5e6b7
    #   gradient-000001-00  7dc7d1c507eba2857e8711e13fff90b2c3b574c6299c73a368f71b532bfdc2b5
    #   update-000001       596c7fc8338b15ba9bf498994216d66f0c28ba0e725462eb7a8de44f8e2ecac9
    #   evaluation-000001   c5ccff5e0004e575932f228524ac8fceaaf12131d2456301f654bbb44d7ed565
    ");
    let rollout = answer(folder, &["show", &stage(folder, "rollout-000001-00")]);
    assert_snapshot!(rollout.split("\nspec:").next().unwrap(), @r"
    stage     a67ad52e840ef3a160453f9bd8ae57425335d833e8b43c5f7c2729192c418447
    kind      rollout, version 6
    numerics  cpu-portable
    inputs    f54d6c0fa682277c881e8716670b065504d55645433c3def22275527048e1bed  policy
    outputs   4490ea5f360b39bcf83b8dffc0d44a289edee0ed75c2b4d7945bd67767b4965f  trajectories, [size]
    metrics   entropy 3.087961606681347
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
    stage     596c7fc8338b15ba9bf498994216d66f0c28ba0e725462eb7a8de44f8e2ecac9
    kind      update, version 4
    numerics  cpu-portable
    inputs    f54d6c0fa682277c881e8716670b065504d55645433c3def22275527048e1bed  policy
              2ea8a83f7ddfba20b0cf09c0b55f03e1ae0d2690522c3c9cf527dbfeff3d8fb7  gradient
    outputs   d596019419bd312720e200ad84473bb4418ea71da5dbdded17e049ea6cb921c6  optimizer, [size]
              cf3e0881cb19144ed4e45285f8f61bb87f0b9a18a4d607611970b38f800d08db  policy, 332 B
              36064b5e3e0ef94303b243d86c5f22a30e6540586dc6d72ebdd996136936ae69  policy/config.json, [size]
              2bba267e6584a11da62289b846aafffc43a809633b4ddf026915f590bc0eab0d  policy/model.safetensors, [size]
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
    stage     c5ccff5e0004e575932f228524ac8fceaaf12131d2456301f654bbb44d7ed565
    kind      evaluation, version 6
    numerics  cpu-portable
    inputs    cf3e0881cb19144ed4e45285f8f61bb87f0b9a18a4d607611970b38f800d08db  policy
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
    run       9a4bacb6be8d8156e05d090cb1370012ab35185f97d5ca8969ac204e4f552c58
    state     done: iteration 1 of 1, 0 stages computed, 7 reused
    policy    cf3e0881cb19144ed4e45285f8f61bb87f0b9a18a4d607611970b38f800d08db
    accuracy  0.0% (0 of 4) -> 0.0% (0 of 4)
    seconds   [times]

    next:
      agrpo status
      agrpo show 9a4bacb6be8d
    ");
    assert_snapshot!(answer(folder, &["replay", &stage(folder, "reward-000001-00")]), @r"
    reward 47e4d83dfb2fe747dd15cd4a4ace243c202a39b6364e1c36bfb50d9904e5e6b7
      identical  rewards  d94b988ac97b0ba87fb6a006dd1760b03ddaada9cf5c94a7afc279de969f05c7
    identical
    ");
    assert_snapshot!(answer(folder, &["evaluate", "tiny"]), @r"
    tiny (9a4bacb6be8d): 4 held-out problems, greedy

    policy       steps  tokens/step  passes  temperature  accuracy  95 % interval  stage
    base         8      1            8.00    0            0.0%      0.0% to 49.0%  136b79ade664
    base         4      2            4.00    0            0.0%      0.0% to 49.0%  866cccf86251
    base         2      4            2.00    0            0.0%      0.0% to 49.0%  961787acce88
    base         1      8            1.00    0            0.0%      0.0% to 49.0%  866402fefa99
    iteration 1  8      1            8.00    0            0.0%      0.0% to 49.0%  c5ccff5e0004
    iteration 1  4      2            4.00    0            0.0%      0.0% to 49.0%  b602c21d76ff
    iteration 1  2      4            2.00    0            0.0%      0.0% to 49.0%  945e2bd0aa55
    iteration 1  1      8            1.00    0            0.0%      0.0% to 49.0%  0a4d5347823a

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
    run 9a4bacb6be8d8156e05d090cb1370012ab35185f97d5ca8969ac204e4f552c58 would be forgotten: 11 records
    agrpo gc frees 19 objects, [size]

    next:
      agrpo gc --dry-run
    ");
    for verb in ["pause", "cancel"] {
        let said = answer(folder, &[verb, "tiny"]);
        assert_eq!(said, "run 9a4bacb6be8d: is done already; nothing was changed\n");
    }
    let last = stage(folder, "evaluation-000001");
    let run =
        std::fs::read_dir(folder.join(".agrpo/runs")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(run.join(format!("stages/evaluation-000001.{last}"))).unwrap();
    std::fs::remove_file(folder.join(".agrpo/stages").join(last)).unwrap();
    assert_snapshot!(answer(folder, &["pause", "tiny"]), @r"
    run 9a4bacb6be8d: paused; stages in hand are finished

    next:
      agrpo resume 9a4bacb6be8d
    ");
    assert_snapshot!(answer(folder, &["resume", "tiny"]), @"run 9a4bacb6be8d: resumed");
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
    assert_snapshot!(names.join(" "), @"agrpo libtorch processor cores numerics rows gpu cuda disk store redis");
    let rows = "ok    rows       in 1720 small shapes no row depends on the rows beside it";
    assert!(said.stdout.contains(rows), "{}", said.stdout);
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
    for task in [
        "smoke",
        "countdown",
        "sudoku",
        "gsm8k",
        "math",
        "llada-countdown",
        "llada-sudoku",
        "d1-gsm8k",
        "dream-gsm8k",
        "sdar-gsm8k",
    ] {
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
