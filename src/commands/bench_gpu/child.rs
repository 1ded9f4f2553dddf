//! The process of a section: started, listened to, and ended at its limit. It prints a row as a line of JSON on stdout as
//! soon as it has one, so that what was measured before a crash is kept; what it says on stderr is passed on. Judges no
//! result.

use std::collections::VecDeque;
use std::process::{Command, Stdio};
use std::time::Duration;

use agrpo_lab::gpu_bench::Row;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use super::output;

/// How long a process that was killed may take to end.
const ENDING: Duration = Duration::from_secs(10);
/// How many of the last lines of stderr are searched for a reason.
const LINES: usize = 40;

/// What a process left.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) rows: Vec<Row>,
    /// What it printed beside rows.
    pub(super) rest: String,
    /// Why it failed as a whole.
    pub(super) error: Option<String>,
    /// Why there was nothing to measure.
    pub(super) skipped: Option<String>,
}

/// A line of stdout.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Skipped { skipped: String },
    Row(Row),
}

/// Runs a process for at most `limit`; it is killed then, or when this future is dropped.
pub(super) async fn run(command: Command, limit: Duration) -> Ended {
    let mut ended = Ended::default();
    let program = command.get_program().to_string_lossy().into_owned();
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            ended.error = Some(format!("{program} cannot be started: {error}"));
            return ended;
        }
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut last = VecDeque::new();
    let outcome = {
        let rows = lines(stdout, |line| ended.read(line));
        let talk = lines(stderr, |line| {
            output::talk(&line);
            last.push_back(line);
            if last.len() > LINES {
                drop(last.pop_front());
            }
        });
        let all = async { tokio::join!(rows, talk, child.wait()).2 };
        tokio::time::timeout(limit, all).await
    };
    ended.error = match outcome {
        Ok(Ok(status)) if status.success() => None,
        Ok(Ok(status)) => Some(match reason(&last) {
            Some(reason) => format!("{status}: {reason}"),
            None => status.to_string(),
        }),
        Ok(Err(error)) => Some(format!("it cannot be waited for: {error}")),
        Err(_) => {
            // It may be in a call of the driver; what it holds is freed when the process is gone.
            let killed = child.start_kill();
            let ends = killed.is_ok() && tokio::time::timeout(ENDING, child.wait()).await.is_ok();
            let stuck = if ends { "" } else { ", and cannot be ended" };
            Some(format!("not finished within {:.0} s{stuck}", limit.as_secs_f64()))
        }
    };
    if ended.skipped.is_some() {
        ended.error = None;
    }
    ended
}

impl Ended {
    fn read(&mut self, line: String) {
        match serde_json::from_str(&line) {
            Ok(Line::Row(row)) => self.rows.push(row),
            Ok(Line::Skipped { skipped }) => self.skipped = Some(skipped),
            Err(_) => {
                self.rest.push_str(&line);
                self.rest.push('\n');
            }
        }
    }
}

/// Gives every line to `read`, until the process closes the pipe.
async fn lines(pipe: Option<impl AsyncRead + Unpin>, mut read: impl FnMut(String)) {
    let Some(pipe) = pipe else { return };
    let (mut pipe, mut line) = (BufReader::new(pipe), vec![]);
    while let Ok(1..) = pipe.read_until(b'\n', &mut line).await {
        read(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
}

/// The last error that it reported, or else its last line.
fn reason(last: &VecDeque<String>) -> Option<String> {
    let is_error = |line: &&String| line.contains("error") || line.contains("Error");
    let line = last.iter().rev().find(is_error).or_else(|| last.back())?;
    Some(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, milliseconds: u64) -> Ended {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(command, Duration::from_millis(milliseconds)))
    }

    #[test]
    fn rows_before_a_crash_or_the_limit_are_kept() {
        let row = r#"echo '{"name": "first", "seconds": 1, "result": {"x": 2}}'"#;
        let crashed =
            shell(&format!("{row}; echo 'error: lost' >&2; echo later >&2; exit 9"), 9000);
        assert_eq!(crashed.rows.len(), 1);
        assert_eq!(crashed.rows[0].result["x"], 2);
        assert_eq!(crashed.error.unwrap(), "exit status: 9: error: lost");
        let killed = shell(&format!("{row}; kill -SEGV $$"), 9000);
        assert_eq!(killed.rows.len(), 1);
        assert!(killed.error.unwrap().starts_with("signal: 11"));
        let odd = shell(&format!(r"printf '\377\n'; {row}"), 9000);
        assert_eq!((odd.rows.len(), odd.error), (1, None), "bytes that are no text end nothing");
        let late = shell(&format!("{row}; exec sleep 60"), 300);
        assert_eq!((late.rows.len(), late.error.unwrap().as_str()), (1, "not finished within 0 s"));
    }

    #[test]
    fn what_is_not_there_is_skipped_or_named() {
        let skipped = shell(r#"echo '{"skipped": "no torch"}'; exit 1"#, 9000);
        assert_eq!((skipped.skipped.unwrap().as_str(), skipped.error), ("no torch", None));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let gone = runtime.block_on(run(Command::new("/nowhere/python"), Duration::from_secs(9)));
        assert!(gone.error.unwrap().starts_with("/nowhere/python cannot be started: "));
    }
}
