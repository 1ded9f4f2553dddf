//! Reports, live pages and single completions as text: their contents, and that they hold nothing dangerous. Tests in
//! a browser are in `browser.rs`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};

use crate::support::program::Program;

fn finished() -> Program {
    let program = Program::new(&[]);
    program.json(&["run", "run.toml", "--json"]);
    program
}

fn text(program: &Program, name: &str) -> String {
    std::fs::read_to_string(program.folder().join(name)).unwrap()
}

#[test]
fn a_report_is_one_file_that_shows_all_of_a_run() {
    let program = finished();
    let said = program.run(&["report", "bytes", "-o", "r.html", "--plots", "charts"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), ""), "{}", said.stderr);
    assert!(said.stderr.contains("wrote r.html ("), "{}", said.stderr);
    let html = text(&program, "r.html");
    let status = program.json(&["status", "--json"]);
    let run = &status["runs"][0];
    let policy = run["policy"].as_str().unwrap();
    for part in [
        run["run"].as_str().unwrap(),
        policy,
        "mean reward",
        "held-out accuracy",
        "gradient norm",
        "share of clipped ratios",
        "seconds of a stage",
        "entropy of a written token",
        "tokens of a completion",
        "Before training",
        "After training",
        "agrpo replay --run",
        "iterations = 4",
        "which worker computed what and when",
    ] {
        assert!(html.contains(part), "{part}");
    }
    // Nothing is fetched from anywhere.
    for elsewhere in ["src=", "http-equiv=\"refresh\"", "@import", "url("] {
        assert!(!html.contains(elsewhere), "{elsewhere}");
    }
    let links = html.matches("href=\"http").count();
    assert_eq!(links, 0);
    assert!(html.contains("default-src &#39;none&#39;") || html.contains("default-src 'none'"));
    for chart in ["reward", "accuracy", "steps", "gradient-norm", "seconds", "timeline"] {
        assert!(text(&program, &format!("charts/{chart}.svg")).starts_with("<svg "), "{chart}");
    }
    // The run file in it is the run.
    let file = html.split("every default explicit</summary><pre><code>").nth(1).unwrap();
    let file = file.split("</code>").next().unwrap().replace("&quot;", "\"");
    std::fs::write(program.folder().join("from-report.toml"), file).unwrap();
    let rerun = program.json(&["run", "from-report.toml", "--json"]);
    assert_eq!(rerun["run"], run["run"]);
    assert_eq!(rerun["stages"]["computed"], 0, "{rerun}");
    let again = program.run(&["report", "bytes", "-o", "again.html"]);
    assert_eq!(again.code, Some(0));
    assert_eq!(text(&program, "again.html"), html, "the same run, the same report");
}

#[test]
fn a_report_goes_to_standard_output_where_it_is_asked_for() {
    let program = finished();
    program.run(&["report", "bytes"]);
    let said = program.run(&["report", "bytes", "-o", "-"]);
    assert_eq!((said.code, &*said.stderr), (Some(0), ""));
    assert_eq!(said.stdout, text(&program, "report.html"));
    assert!(!program.folder().join("-").exists());
}

#[test]
fn runs_stand_beside_each_other_with_their_differences() {
    let program = finished();
    program.json(&["run", "run.toml", "--seed", "8", "--json"]);
    let status = program.json(&["status", "--json"]);
    let runs: Vec<&str> =
        status["runs"].as_array().unwrap().iter().map(|run| run["run"].as_str().unwrap()).collect();
    let said = program.run(&["report", runs[0], runs[1], "-o", "both.html"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let html = text(&program, "both.html");
    for run in &runs {
        assert!(html.contains(&format!("bytes {}", &run[..12])), "different names");
    }
    assert!(html.contains("Where they differ") && html.contains(">seed<"));
    let twice = program.run(&["report", runs[0], runs[0]]);
    assert_eq!(twice.code, Some(2));
    assert!(twice.stderr.contains("is named twice"), "{}", twice.stderr);
}

#[test]
fn what_cannot_be_reported_is_said_in_a_line() {
    let program = finished();
    for (arguments, part) in [
        (&["report", "absent"][..], "absent"),
        (&["report", "bytes", "-o", "no/such/folder/r.html"], "cannot write there"),
        (&["report"], "RUN"),
    ] {
        let said = program.run(arguments);
        assert_eq!(said.code, Some(2), "{arguments:?}: {}", said.stderr);
        assert!(said.stderr.contains(part), "{arguments:?}: {}", said.stderr);
    }
}

/// A live server, stopped with its handle.
pub(crate) struct Served {
    child: Child,
    pub(crate) address: SocketAddr,
    line: String,
}

impl Served {
    pub(crate) fn start(program: &Program, arguments: &[&str]) -> Self {
        let arguments = [&["serve"], arguments].concat();
        let mut child = program.spawn(&arguments, Stdio::piped());
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().trim_start_matches("http://").split('/').next().unwrap();
        let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Self { child, address, line }
    }

    /// The header by which a browser brings the token back to this server and to no other of the host.
    fn cookie(&self, token: &str) -> String {
        format!("Cookie: agrpo_token_{}={token}\r\n", self.address.port())
    }

    /// Status line and body.
    fn ask(&self, path: &str, headers: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let host = if headers.contains("Host:") {
            String::new()
        } else {
            format!("Host: {}\r\n", self.address)
        };
        write!(stream, "GET {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn live_pages_show_runs_and_answer_to_their_own_name_alone() {
    let program = finished();
    let served = Served::start(&program, &["--listen", "127.0.0.1:0"]);
    assert_eq!(served.line.trim(), format!("http://{}", served.address));
    let (head, body) = served.ask("/", "");
    assert!(head.starts_with("HTTP/1.1 200") && body.contains(">bytes</a>"), "{head}\n{body}");
    let run = body.split("/runs/").nth(1).unwrap().split('"').next().unwrap();
    let (head, body) = served.ask(&format!("/runs/{run}"), "");
    assert!(head.starts_with("HTTP/1.1 200") && body.contains("chart-reward"), "{head}");
    let (head, body) = served.ask(&format!("/runs/{run}/samples"), "");
    assert!(head.starts_with("HTTP/1.1 200") && body.contains("data-trajectory"), "{head}");
    for wrong in ["/runs/absent", "/nowhere", "/rollouts/00/0"] {
        let (head, _) = served.ask(wrong, "");
        assert!(head.starts_with("HTTP/1.1 404"), "{wrong}: {head}");
    }
    let (head, _) = served.ask("/", "Host: evil.example\r\n");
    assert!(head.starts_with("HTTP/1.1 421"), "{head}");
}

#[test]
fn serving_other_machines_needs_a_token_and_shows_nothing_without() {
    let mut program = finished();
    program.set("AGRPO_SERVE_TOKEN", "correct-horse-battery-staple");
    let served = Served::start(&program, &["--listen", "127.0.0.1:0"]);
    assert!(!served.line.contains("correct"), "a given token is not printed: {}", served.line);
    let (head, body) = served.ask("/", "");
    assert!(head.starts_with("HTTP/1.1 401") && !body.contains("bytes"), "{head}");
    let (head, _) = served.ask("/?token=wrong", "");
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
    let (head, _) = served.ask("/?token=correct-horse-battery-staple", "");
    assert!(
        head.starts_with("HTTP/1.1 303") && head.contains("HttpOnly; SameSite=Strict"),
        "{head}"
    );
    let (head, body) = served.ask("/", &served.cookie("correct-horse-battery-staple"));
    assert!(head.starts_with("HTTP/1.1 200") && body.contains("bytes"), "{head}");
}

#[test]
fn an_address_that_others_reach_has_a_token_of_its_own_and_a_weak_one_is_refused() {
    let mut program = finished();
    let served = Served::start(&program, &["--listen", "0.0.0.0:0"]);
    let token = served.line.trim().split_once("/?token=").unwrap().1;
    assert_eq!(token.len(), 32, "{}", served.line);
    let (head, _) = served.ask("/", "");
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
    let (head, _) = served.ask("/", &served.cookie(token));
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    program.set("AGRPO_SERVE_TOKEN", "short; weak");
    let said = program.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("AGRPO_SERVE_TOKEN: expected at least 16"), "{}", said.stderr);
}

#[test]
fn a_completion_is_shown_step_by_step_without_colour_where_there_is_no_terminal() {
    let program = finished();
    let shown = program.json(&["show", "bytes", "--json"]);
    let rollout = shown["stages"]["rollout-000004-00"].as_str().unwrap();
    let said = program.run(&["show", rollout, "--sample", "3", "--play"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stdout.contains("step 0 of 8") && said.stdout.contains("step 8 of 8"));
    assert!(said.stdout.contains("░░░░░░░░░░░░░░░░") && !said.stdout.contains('\u{1b}'));
    let json = program.json(&["show", rollout, "--sample", "3", "--json"]);
    let tokens = json["trajectory"]["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), 8);
    for token in tokens {
        let probability = token["probability"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&probability) && token["step"].as_u64().unwrap() < 8);
    }
    let beyond = program.run(&["show", rollout, "--sample", "9999"]);
    assert_eq!(beyond.code, Some(2), "{}", beyond.stderr);
    let no_rollout = shown["stages"]["update-000004"].as_str().unwrap();
    assert_eq!(program.run(&["show", no_rollout, "--sample", "0"]).code, Some(5));
    let watch = program.run(&["watch"]);
    assert_eq!(watch.code, Some(2));
    assert!(watch.stderr.contains("is no terminal"), "{}", watch.stderr);
}
