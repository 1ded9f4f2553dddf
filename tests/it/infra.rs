//! Compares `infra/` and the operator's page with the program: metrics by name and label, options by the help, files by
//! a reader of their format.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use agrpo_fleet::metrics::{ALL, Kind, Outcome};
use serde_json::Value;

use crate::cli::alone;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every document of a YAML file.
fn yaml(name: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every text at this key, at any depth.
fn all_at<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get(key).and_then(Value::as_str));
            map.values().for_each(|value| all_at(value, key, found));
        }
        Value::Array(all) => all.iter().for_each(|value| all_at(value, key, found)),
        _ => {}
    }
}

/// The metrics that expressions ask for, each checked against the one list, its labels too.
fn asked(expressions: &[&str]) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut found = BTreeSet::new();
    for expression in expressions {
        for (at, _) in expression.match_indices("agrpo_") {
            let rest = &expression[at..];
            let (name, rest) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
            let parts = ["_bucket", "_sum", "_count"];
            let metric = ALL.iter().find(|metric| match metric.kind {
                Kind::Histogram(_) => {
                    parts.iter().any(|part| name.strip_suffix(part) == Some(metric.name))
                }
                _ => metric.name == name,
            });
            let metric = metric.unwrap_or_else(|| panic!("there is no metric {name}"));
            found.insert(metric.name.to_owned());
            let chosen = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            let chosen = chosen.map_or("", |(chosen, _)| chosen);
            for matcher in chosen.split(',').filter(|matcher| !matcher.is_empty()) {
                let (label, rest) = matcher.split_at(matcher.find(|c| !is_name(c)).unwrap());
                assert!(metric.labels.contains(&label), "{name} has no label {label}");
                let value = rest.trim_start_matches(['=', '!', '~']).trim_matches('"');
                let outcomes = Outcome::ALL.map(Outcome::label);
                let known = value.split('|').all(|value| outcomes.contains(&value));
                assert!(known || label != "outcome", "{name}: no outcome is {value}");
            }
        }
    }
    found
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_there_are() {
    let dashboard: Value = serde_json::from_str(&text("infra/grafana/agrpo.json")).unwrap();
    let (mut expressions, mut titles) = (vec![], vec![]);
    all_at(&dashboard, "expr", &mut expressions);
    let all: BTreeSet<_> = ALL.iter().map(|metric| metric.name.to_owned()).collect();
    assert_eq!(asked(&expressions), all, "every metric is on the dashboard, and nothing else");
    all_at(&dashboard["panels"], "title", &mut titles);
    let count = titles.len();
    assert_eq!(titles.into_iter().collect::<BTreeSet<_>>().len(), count, "a title twice");

    let (rules, mut expressions) = (yaml("infra/prometheus/alerts.yml"), vec![]);
    all_at(&rules[0], "expr", &mut expressions);
    let alerts = rules[0]["groups"][0]["rules"].as_array().unwrap();
    assert_eq!(alerts.len(), expressions.len());
    assert!(asked(&expressions).is_subset(&all));
    let page = text("docs/operations.md");
    for alert in alerts {
        let name = alert["alert"].as_str().unwrap();
        assert!(alert["annotations"]["action"].is_string(), "{name} does not say what to do");
        assert!(page.contains(&format!("`{name}`")), "docs/operations.md does not name {name}");
    }
    assert_eq!(yaml("infra/prometheus/prometheus.yml")[0]["rule_files"][0], "alerts.yml");
}

/// The metrics as the operator's page lists them.
fn table() -> String {
    let rows = ALL.iter().map(|metric| {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = labels.join(", ");
        format!("| `{}` | {kind} | {labels} | {} |\n", metric.name, metric.help)
    });
    rows.collect()
}

#[test]
fn the_page_lists_every_metric_and_every_setting() {
    let page = text("docs/operations.md");
    assert!(page.contains(&table()), "docs/operations.md should hold\n\n{}", table());
    assert!(page.contains(text("infra/redis.acl.example").trim()), "the rights differ");
    let settings = text("src/settings.rs");
    let (product, _) = settings.split_once("#[cfg(test)]").unwrap();
    let is_name = |word: &&str| word.starts_with("AGRPO_") && word.len() > "AGRPO_".len();
    // Variables of the fault suite are not settings of a fleet.
    let of_suite = |word: &&str| word.starts_with("AGRPO_FAULT_");
    // Each setting is a constant; names without one are read elsewhere, and only known not to be mistyped.
    let constants = product.lines().filter(|line| line.starts_with("const "));
    let names = constants.filter_map(|line| line.split('"').nth(1)).filter(is_name);
    let names: Vec<_> = names.filter(|word| !of_suite(word)).collect();
    assert!(names.len() >= 8, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "docs/operations.md does not name {name}");
    }
}

#[test]
fn kubernetes_is_given_what_the_program_understands() {
    let help = alone(&["worker", "--help"], "").stdout;
    let workers = yaml("infra/kubernetes/workers.yaml");
    let pod = &workers[0]["spec"]["template"]["spec"];
    assert_eq!(workers[0]["kind"], "Deployment");
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() >= 600);
    let container = &pod["containers"][0];
    let arguments: Vec<_> =
        container["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!(arguments[0], "worker");
    for option in arguments.iter().filter(|word| word.starts_with("--")) {
        assert!(help.contains(option), "agrpo worker knows no {option}");
    }
    let port = &container["ports"][0]["containerPort"];
    assert!(arguments.iter().any(|word| word.ends_with(&format!(":{port}"))));
    assert_eq!(
        workers[0]["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"],
        port.to_string()
    );
    let secrets = &yaml("infra/kubernetes/secrets.example.yaml")[0]["stringData"];
    for variable in container["env"].as_array().unwrap() {
        let (name, value) = (&variable["name"], variable["value"].as_str().unwrap());
        if name.as_str().unwrap().ends_with("_FILE") {
            let file = value.strip_prefix("/secrets/").unwrap();
            assert_eq!(secrets[file], "REPLACE", "{name} names a file that no secret makes");
        }
    }
    let kinds: Vec<_> =
        yaml("infra/kubernetes/redis.yaml").iter().map(|one| one["kind"].clone()).collect();
    assert_eq!(kinds, ["Service", "StatefulSet"]);
}

/// Two scripts stand in for Slurm and the worker: the time limit drains the worker and requeues the job.
#[test]
fn a_slurm_job_drains_before_its_limit_and_is_queued_again() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    };
    // What a worker does on SIGTERM, which here comes before the job has noted which worker it started; or it ends by
    // itself.
    let worker = "#!/bin/bash\necho \"$@\" > said\ntrap 'sleep 0.1; echo drained >> said; exit 0' TERM\n\
                  [[ -z $ALONE ]] || exit $ALONE\nkill -TERM $PPID\nfor _ in {1..100}; do sleep 0.1; done\n";
    write("agrpo", worker);
    write("scontrol", "#!/bin/bash\necho \"$@\" > requeued\n");
    write("worker.env", "AGRPO_STORE=s3://bucket\n");
    let job = |alone: &str| {
        let mut command = Command::new("bash");
        command.arg(path("infra/slurm/workers.sbatch")).current_dir(folder.path()).env_clear();
        let search = format!("{}:/usr/bin:/bin", folder.path().display());
        command.envs([("PATH", search.as_str()), ("USER", "me"), ("HOME", "/"), ("ALONE", alone)]);
        command.envs([("AGRPO_ENV", "worker.env"), ("SLURM_ARRAY_JOB_ID", "7")]);
        command.env("SLURM_ARRAY_TASK_ID", "2").spawn().unwrap()
    };
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    for _ in 0..8 {
        assert_eq!(job("").wait().unwrap().code(), Some(0));
        assert!(read("said").ends_with("drained\n"), "{}", read("said"));
        assert_eq!(read("requeued"), "requeue 7_2\n");
    }
    let help = alone(&["worker", "--help"], "").stdout;
    for option in read("said").split_whitespace().filter(|word| word.starts_with("--")) {
        assert!(help.contains(option), "agrpo worker knows no {option}");
    }
    for (code, requeued) in [("2", ""), ("4", "requeue 7_2\n")] {
        std::fs::remove_file(folder.path().join("requeued")).ok();
        assert_eq!(job(code).wait().unwrap().code(), code.parse().ok());
        assert_eq!(read("requeued"), requeued);
    }
}
