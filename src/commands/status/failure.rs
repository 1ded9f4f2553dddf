//! A failure record for people: what failed, where, and what was logged before.

use agrpo_store::Failure;

use crate::output;

/// Lines of a name and a value, then the log.
pub(super) fn describe(failure: &Failure) -> String {
    let Failure { key, stage, error, remedy, worker, attempts, environment, log, .. } = failure;
    let mut machine = environment.cpu.clone();
    if let Some(gpu) = &environment.gpu {
        machine = format!("{gpu}; {machine}");
    }
    let rows = [
        ("failed at", key.to_string()),
        ("stage", stage.to_string()),
        ("error", error.clone()),
        ("remedy", remedy.to_string()),
        ("attempts", attempts.to_string()),
        ("worker", worker.clone()),
        ("machine", format!("{} ({machine})", environment.host)),
        ("program", format!("agrpo {}, libtorch {}", environment.agrpo, environment.libtorch)),
    ];
    let rows = rows.map(|(name, value)| vec![name.to_owned(), value]);
    let mut text = output::table(&rows);
    if !log.is_empty() {
        text += "\nlast log lines";
        for line in log {
            text += "\n  ";
            text += line;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use agrpo_spec::{Environment, Plan, Run};
    use agrpo_store::Remedy;

    use super::*;

    #[test]
    fn a_person_reads_what_failed_where_and_what_was_logged() {
        let text = include_str!("../../../jobs/runs/smoke.toml");
        let plan = Plan::new(Run::parse(text).unwrap());
        let (&key, spec) = plan.pending().iter().next().unwrap();
        let failure = Failure {
            key,
            stage: spec.digest(),
            error: "sft stage failed: out of memory".to_owned(),
            remedy: Remedy::Elsewhere,
            worker: "node-7-1".to_owned(),
            attempts: 3,
            unix_ms: 1,
            environment: Environment {
                agrpo: "0.1.0".to_owned(),
                libtorch: "2.11.0".to_owned(),
                cpu: "a processor".to_owned(),
                gpu: Some("a GPU".to_owned()),
                host: "node-7".to_owned(),
                ..Environment::default()
            },
            log: vec!["a first line".to_owned(), "a second line".to_owned()],
        };
        let shown = describe(&failure).replace(&failure.stage.to_string(), "STAGE");
        insta::assert_snapshot!(shown, @r"
        failed at  sft-000000
        stage      STAGE
        error      sft stage failed: out of memory
        remedy     try again elsewhere
        attempts   3
        worker     node-7-1
        machine    node-7 (a GPU; a processor)
        program    agrpo 0.1.0, libtorch 2.11.0
        last log lines
          a first line
          a second line
        ");
    }
}
