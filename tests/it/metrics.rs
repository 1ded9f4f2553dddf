//! Metrics of a real worker, read as strictly as the format is written.

use std::time::Duration;

use agrpo_fleet::metrics::{ALL, Kind};

use crate::support::exposition::parse;
use crate::support::http::{free_address, get};
use crate::support::program::Program;
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

#[test]
fn a_worker_counts_what_it_did() {
    let redis = RedisServer::start(&[]);
    let url = redis.url();
    let program = Program::new(&[("AGRPO_REDIS", &url)]);
    program.json(&["enqueue", "run.toml", "--json"]);
    let address = free_address();
    let at = address.to_string();
    let mut worker = program.start(&["worker", "--exit-when-idle", "60", "--metrics", &at]);
    wait_for("the end of the run", || {
        (program.policy().1 == "done").then(|| get(address, "/health")).flatten()
    });
    // The queues are looked at every other second.
    std::thread::sleep(Duration::from_secs(3));
    let text = get(address, "/metrics").unwrap();
    let taken = program.run(&["worker", "--exit-when-idle", "1", "--metrics", &at]);
    worker.kill().unwrap();
    worker.wait().unwrap();
    assert_eq!(taken.code, Some(4), "{}", taken.stderr);
    let complaint = format!("error: --metrics {at}: Address already in use");
    assert!(taken.stderr.contains(&complaint), "{}", taken.stderr);

    let found = parse(&text).unwrap_or_else(|why| panic!("{why}\n\n{text}"));
    let names: Vec<_> = found.keys().map(String::as_str).collect();
    let mut expected: Vec<_> = ALL.iter().map(|metric| metric.name).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    for metric in ALL {
        let family = &found[metric.name];
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        assert_eq!((family.kind.as_str(), family.help.as_str()), (kind, metric.help));
        for (_, labels, _) in &family.samples {
            let labels: Vec<_> = labels.keys().filter(|name| *name != "le").collect();
            let mut expected = metric.labels.to_vec();
            expected.sort_unstable();
            assert_eq!(labels, expected, "{}", metric.name);
        }
    }
    let sum = |name: &str, with: &[(&str, &str)]| {
        let family = name.trim_end_matches("_count").trim_end_matches("_sum");
        found[family].sum(name, with)
    };
    let stages = program.json(&["status", "--json"])["runs"][0]["stages"]["done"].as_f64();
    let finished = sum("agrpo_stages_total", &[("outcome", "finished")]);
    assert_eq!(Some(finished), stages);
    assert_eq!(sum("agrpo_stages_total", &[]).to_bits(), finished.to_bits(), "nothing else ended");
    for phase in ["fetch", "compute", "store"] {
        let count = sum("agrpo_stage_phase_seconds_count", &[("phase", phase)]);
        assert_eq!(count.to_bits(), finished.to_bits());
    }
    assert!(sum("agrpo_stage_phase_seconds_sum", &[("phase", "compute")]) > 0.0);
    assert!(sum("agrpo_stage_started_timestamp_seconds", &[]) > 1.7e9);
    assert!(sum("agrpo_store_written_bytes_total", &[]) > 0.0);
    assert!(sum("agrpo_blob_cache_requests_total", &[("result", "hit")]) > 0.0);
    assert_eq!(sum("agrpo_worker_info", &[("numerics", "cpu-portable")]).to_bits(), 1f64.to_bits());
    for name in ["agrpo_queue_stages", "agrpo_stages_in_hand", "agrpo_lease_losses_total"] {
        assert_eq!(sum(name, &[]).to_bits(), 0f64.to_bits(), "{name}");
    }
}

#[test]
fn the_reader_of_metrics_forgives_nothing() {
    let good = "# HELP a_total A.\n# TYPE a_total counter\na_total{kind=\"x\\\"\\\\\\n\"} 1\n";
    let value = &parse(good).unwrap()["a_total"].samples[0].1["kind"];
    assert_eq!(value, "x\"\\\n");
    let histogram =
        |buckets: &str| format!("# HELP a A.\n# TYPE a histogram\n{buckets}a_sum 1\na_count 2\n");
    assert!(parse(&histogram("a_bucket{le=\"1\"} 1\na_bucket{le=\"+Inf\"} 2\n")).is_ok());
    for bad in [
        good.trim_end().to_owned(),
        good.replace("# HELP a_total A.\n", ""),
        good.replace("counter", "gauge"),
        good.replace("a_total", "a_ms_total"),
        good.replace("} 1", "} -1"),
        good.replace("} 1", "} one"),
        good.replace("\\n", "\\t"),
        format!("{good}{good}"),
        format!("{good}a_total{{kind=\"x\\\"\\\\\\n\"}} 2\n"),
        format!("{good}b_total 1\n"),
        histogram("a_bucket{le=\"1\"} 3\na_bucket{le=\"+Inf\"} 2\n"),
        histogram("a_bucket{le=\"1\"} 1\na_bucket{le=\"+Inf\"} 3\n"),
        histogram("a_bucket{le=\"1\"} 2\n"),
    ] {
        assert!(parse(&bad).is_err(), "{bad}");
    }
}
