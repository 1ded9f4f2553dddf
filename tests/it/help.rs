//! Help, manual pages and completions as the program prints them. That no verb is left out, and what the
//! help of each says, is tested over the definition itself in `src/args/tests.rs`.

use std::process::Command;

use insta::assert_snapshot;

use crate::cli::alone;
use crate::support::not_run::not_run;

/// The options that end the help of every verb that answers in JSON from a store.
const COMMON: &str = "      --store <URL>
          Folder, file:///path or s3://bucket/prefix that keeps all results [default: $AGRPO_STORE,
          else .agrpo]

      --json
          Answer in JSON

  -h, --help
          Print help (see a summary with '-h')

Global options:
      --log-format <FORMAT>
          Format of log lines on stderr
          
          [default: text]
          [possible values: text, json]
";

/// The help of a verb, with its common options named only.
pub(crate) fn help_of(verb: &str) -> String {
    let help = alone(&[verb, "--help"], "").stdout;
    assert!(help.contains(COMMON), "{help}");
    help.replace(COMMON, "[common options]\n")
}

/// The verbs that the help lists.
fn verbs() -> Vec<String> {
    let help = alone(&["--help"], "").stdout;
    let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    listed.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
}

#[test]
fn help() {
    let said = alone(&["--help"], "");
    assert_eq!((said.code, &*said.stderr), (Some(0), ""));
    assert_snapshot!(said.stdout, @r"
    Post-train diffusion language models with reinforcement learning, replayable to the bit

    A run is a TOML file. From it follows, stage by stage, one chain of results: the same file gives the
    same bytes, on any machines of its class, in any order, however often they were interrupted.

    Usage: agrpo [OPTIONS] <COMMAND>

    Commands:
      init         Write a run file with every key that matters and a comment on each
      run          Compute a run on this machine, without any service
      enqueue      Queue a run for the workers of a fleet
      worker       Compute queued stages until stopped
      status       List runs with their progress and the accuracy of their policies
      pause        Pause a run: begin no stage of it until it is resumed
      resume       Resume a run that was paused or cancelled
      cancel       Cancel a run: begin no stage of it until the run is asked for again
      retry        Give a run's failed stages new attempts
      show         Show a run, a stage or an artifact
      report       Write what a run did, or how runs compare, as one HTML file
      serve        Show runs on a live page, as they grow
      watch        Watch runs in the terminal
      export       Write a policy or a run's metrics for other programs
      import       Take a base from a Hugging Face folder into the store
      replay       Compute stages again and compare every output with the stored one
      verify       Read every byte of a run or of the whole store and compare it with its name
      gc           Delete what no run needs any more
      forget       Forget a run: delete its records
      evaluate     Measure a run's policies by unmask steps, or by lengths and steps
      compare      Compute variants of a run over several seeds and lay them side by side
      tune         Measure estimators of the policy gradient, and recommend a number of samples
      score        Grade your own completions with a task's reward
      doctor       Check this machine and the services, and say what to do
      completions  Print a completion script for a shell
      man          Write manual pages, one for each command

    Options:
      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Global options:
          --log-format <FORMAT>
              Format of log lines on stderr
              
              [default: text]
              [possible values: text, json]

    Exit codes:
      0    done
      1    unexpected: a defect of agrpo
      2    the command line, a setting or a file cannot be used
      3    a comparison differs
      4    a service is unreachable, or the machine lacks something
      5    stored data is corrupt or missing
      6    a stage failed for good
      130  stopped before the end; the same command goes on from there
    ");
}

#[test]
fn help_is_plain_text_of_a_hundred_columns_for_every_verb() {
    for verb in verbs() {
        for asked in ["--help", "-h"] {
            let said = alone(&[&verb, asked], "");
            assert_eq!((said.code, &*said.stderr), (Some(0), ""), "{verb}");
            assert!(
                !said.stdout.contains('\u{1b}'),
                "{verb} {asked} is coloured without a terminal"
            );
            let wide = said.stdout.lines().find(|line| line.chars().count() > 100);
            assert_eq!(wide, None, "{verb} {asked}");
        }
    }
}

/// What a command says to a terminal, which `script` of util-linux makes.
fn in_a_terminal(command: &str, environment: &[(&str, &str)]) -> String {
    let said = Command::new("script")
        .args(["--quiet", "--return", "--command", command, "/dev/null"])
        .env_clear()
        .envs([("PATH", "/usr/bin:/bin"), ("TERM", "xterm-256color"), ("SHELL", "/bin/sh")])
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    String::from_utf8(said.stdout).unwrap()
}

#[test]
fn a_terminal_has_colour_unless_it_is_declined() {
    let help = concat!(env!("CARGO_BIN_EXE_agrpo"), " run --help");
    let mistake = concat!(env!("CARGO_BIN_EXE_agrpo"), " rum");
    for command in [help, mistake] {
        assert!(in_a_terminal(command, &[]).contains('\u{1b}'), "{command}");
        assert!(!in_a_terminal(command, &[("NO_COLOR", "1")]).contains('\u{1b}'), "{command}");
    }
}

#[test]
fn manual_pages_are_there_for_every_verb_and_read_without_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    let said = alone(&["man", pages.to_str().unwrap()], "");
    assert_eq!((said.code, &*said.stderr), (Some(0), ""), "{}", said.stderr);
    for verb in verbs() {
        let page = std::fs::read_to_string(pages.join(format!("agrpo-{verb}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS") && page.contains("Example"), "{verb}");
    }
    let groff = Command::new("groff").arg("--version").output();
    if groff.is_err() {
        not_run("there is no groff to read the pages with");
        return;
    }
    for entry in std::fs::read_dir(&pages).unwrap() {
        let page = entry.unwrap().path();
        let read =
            Command::new("groff").args(["-man", "-Tutf8", "-ww"]).arg(&page).output().unwrap();
        let warned = String::from_utf8(read.stderr).unwrap();
        assert!(read.status.success() && warned.is_empty(), "{}: {warned}", page.display());
    }
}

#[test]
fn completions_know_every_verb() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let said = alone(&["completions", shell], "");
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        for verb in verbs() {
            assert!(said.stdout.contains(&verb), "{shell} does not know {verb}");
        }
    }
}
