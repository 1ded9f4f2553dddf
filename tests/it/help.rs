//! Help as text: what a person reads who asks for it.

use insta::assert_snapshot;

use crate::cli::alone;

#[test]
fn help() {
    let said = alone(&["--help"], "");
    assert_eq!((said.code, &*said.stderr), (Some(0), ""));
    assert_snapshot!(said.stdout, @r"
    Post-train diffusion language models with reinforcement learning, replayable to the bit

    A run is a TOML file. From it follows, stage by stage, one chain of results: the same file gives the
    same bytes, whoever computes them, in whatever order, however often they were interrupted.

    Usage: agrpo [OPTIONS] <COMMAND>

    Commands:
      run          Compute a run on this machine, without any service
      enqueue      Hand a run to the workers of a fleet
      worker       Compute queued stages until stopped
      status       List runs: how far they are and how accurate their policies
      pause        Hold a run back: begin no stage of it until it is resumed
      resume       Let a run go on that was paused or cancelled
      cancel       Give a run up: begin no stage of it, unless somebody asks for the run again
      retry        Give a run's failed stages new attempts
      show         Show a run, a stage or an artifact
      report       Write what a run did, or how runs compare, as one HTML file
      serve        Show runs on a live page, as they grow
      watch        Watch runs in the terminal
      replay       Compute stages again and compare every output with the stored one
      verify       Read every byte of a run or of the whole store and compare it with its name
      gc           Delete what no run needs any more
      forget       Give up a run: remove what is kept about it
      evaluate     Measure base and newest policy on a grid of unmask steps
      compare      Compute variants of a run over several seeds and lay them side by side
      tune         Measure estimators of the policy gradient, and recommend a number of samples
      score        Grade your own completions with a task's reward
      doctor       Check this machine and the services, and say what to do
      completions  Print a completion script for a shell

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
fn help_of_run() {
    assert_snapshot!(alone(&["run", "--help"], "").stdout, @r"
    Compute a run on this machine, without any service

    Stages that the store already holds are not computed again, so the same command resumes a run that
    was stopped or crashed. Ctrl-C lets the stages in hand finish; a second Ctrl-C stops at once. A run
    that agrpo pause holds back waits for agrpo resume; agrpo cancel ends it with code 130. The number
    of workers changes how long it takes, never what comes out.

    Usage: agrpo run [OPTIONS] <FILE>

    Arguments:
      <FILE>
              Run file in TOML; - reads standard input

    Options:
          --seed <N>
              Seed to use instead of the file's

          --numerics <CLASS>
              Numerics class to use instead of the file's: cpu-portable, cpu-native, or cuda:SM for GPUs
              of compute capability SM

          --source <KEY=ADDRESS>
              Where a file that the run names is to be had, instead of what it says; may be repeated

          --dry-run
              Say what would be computed, how large it gets and how long it takes; compute nothing

          --tflops <N>
              Operations a second of one worker to estimate time with, in 10^12 [default: assumed by
              class]

          --ignore-memory
              Compute even what is estimated not to fit into memory

          --store <URL>
              Folder, file:///path or s3://bucket/prefix that keeps all results [default: $AGRPO_STORE,
              else .agrpo]

          --cache <DIR>
              Folder for blobs of a bucket, which all workers of this host may share [default:
              $AGRPO_CACHE_DIR, else below $XDG_CACHE_HOME or ~/.cache]

          --cache-size <BYTES>
              Most bytes in that folder, as in 50GiB; 0 keeps none [default: $AGRPO_CACHE_SIZE, else a
              quarter of what the disk spares, up to 64GiB]

          --device <DEVICE>
              What computes: cpu, or cuda:N for the GPU number N
              
              [default: cpu]

          --workers <N>
              Stages computed at the same time, one thread each [default: number of cores, or 1 on a
              GPU]

          --metrics <ADDR>
              Tell Prometheus metrics at this address, as in 127.0.0.1:9180; loopback is best, as
              anybody who reaches it may read them [default: $AGRPO_METRICS, else off]

          --json
              Answer in JSON

      -h, --help
              Print help (see a summary with '-h')

    Global options:
          --log-format <FORMAT>
              Format of log lines on stderr
              
              [default: text]
              [possible values: text, json]

    Examples:
      agrpo run jobs/runs/smoke.toml
      agrpo run jobs/runs/smoke.toml --workers 8 --store s3://bucket/experiments
      agrpo run jobs/runs/smoke.toml --seed 2
      agrpo run jobs/runs/smoke.toml --numerics cuda:90 --device cuda:0
      agrpo run jobs/runs/llada-8b-gsm8k.toml --dry-run
    ");
}

#[test]
fn every_verb_shows_an_example_and_how_to_choose_the_store() {
    for verb in [
        "run", "enqueue", "worker", "status", "pause", "resume", "cancel", "retry", "show",
        "replay", "evaluate", "compare", "tune", "doctor",
    ] {
        let help = alone(&[verb, "--help"], "").stdout;
        assert!(help.contains("Example") && help.contains("AGRPO_STORE"), "{verb}:\n{help}");
    }
    for verb in ["score", "completions"] {
        assert!(alone(&[verb, "--help"], "").stdout.contains("Example"), "{verb}");
    }
}

#[test]
fn help_of_gc() {
    assert_snapshot!(alone(&["gc", "--help"], "").stdout, @r"
    Delete what no run needs any more

    Follows every run in the store from its record to all it reaches, and deletes what is left over and
    old enough: results of forgotten runs, blobs that a run's retention no longer keeps, what killed
    writers left behind. Safe beside running workers. Deletes nothing while a run cannot be followed.

    Usage: agrpo gc [OPTIONS]

    Options:
          --dry-run
              Count what would go; delete nothing

          --grace <DURATION>
              Keep whatever was written within this time, as in 90min, 24h or 7days; below 1h only while
              no worker runs
              
              [default: 24h]

          --store <URL>
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

    Examples:
      agrpo gc --dry-run
      agrpo gc --store s3://bucket/experiments
      agrpo gc --grace 7days
    ");
}

#[test]
fn help_of_verify() {
    assert_snapshot!(alone(&["verify", "--help"], "").stdout, @r"
    Read every byte of a run or of the whole store and compare it with its name

    Changes nothing. The exit code is 5 if anything is missing or corrupt: whoever computes the run
    makes it again. What the run's retention let go is no loss; what no run reaches is counted and goes
    with agrpo gc.

    Usage: agrpo verify [OPTIONS] [RUN]

    Arguments:
      [RUN]
              Run to check, by the start of its id or by its name [default: everything in the store]

    Options:
          --store <URL>
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

    Examples:
      agrpo verify
      agrpo verify smoke --json
    ");
}

#[test]
fn help_of_forget() {
    assert_snapshot!(alone(&["forget", "--help"], "").stdout, @r"
    Give up a run: remove what is kept about it

    Its results stay until the next agrpo gc takes those that no other run needs. Refuses a run that
    could still go on, unless it is forced; workers must have let go of it.

    Usage: agrpo forget [OPTIONS] <RUN>

    Arguments:
      <RUN>
              Run to forget, by the start of its id or by its name

    Options:
          --dry-run
              Say what a gc could free then; remove nothing

          --force
              Forget it even if stages are left, or if its record is damaged

          --store <URL>
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

    Examples:
      agrpo forget smoke --dry-run
      agrpo forget 3f2a91
      agrpo gc
    ");
}
