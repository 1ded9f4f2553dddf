//! The program in front of S3 servers that are not AWS: what `doctor`, `worker` and `run` say, and how they end.

#![expect(clippy::print_stdout, reason = "prints the table of messages")]

use crate::support::fake_s3::{Odd, Server};
use crate::support::program::Program;
use crate::support::redis::RedisServer;

/// One server, and the codes that the three verbs end with; a part of what they say.
struct Case {
    name: &'static str,
    odd: Vec<Odd>,
    is_blind: bool,
    also: Vec<(&'static str, &'static str)>,
    codes: [i32; 3],
    part: &'static str,
}

fn case(name: &'static str, odd: Vec<Odd>, codes: [i32; 3], part: &'static str) -> Case {
    Case { name, odd, is_blind: false, also: vec![], codes, part }
}

fn cases() -> Vec<Case> {
    let conflict = ("409 Conflict", "ConditionalRequestConflict");
    let forbidden = ("403 Forbidden", "AccessDenied");
    let checksums = |answer| Odd { header: "x-amz-checksum-sha256", ..Odd::always("PUT", answer) };
    let invalid = ("400 Bad Request", "InvalidArgument");
    let switch = vec![("AGRPO_S3_CHECKSUM", "none")];
    let once = |what, answer| Odd { times: 1, ..Odd::always(what, answer) };
    vec![
        case("usual", vec![], [0, 0, 0], ""),
        case("one 409 at the start", vec![once("PUT probe/", conflict)], [0, 0, 0], ""),
        case(
            "409 to every conditional write",
            vec![Odd::always("PUT probe/", conflict)],
            [4, 2, 2],
            "a conflict each time",
        ),
        Case {
            is_blind: true,
            ..case("overlooks If-None-Match", vec![], [4, 2, 2], "overlooks conditional writes")
        },
        case("400 on checksums", vec![checksums(invalid)], [4, 2, 2], "AGRPO_S3_CHECKSUM=none"),
        Case {
            also: switch,
            ..case("400 on checksums, which are off", vec![checksums(invalid)], [0, 0, 0], "")
        },
        case(
            "501 on checksums",
            vec![checksums(("501 Not Implemented", "NotImplemented"))],
            [4, 2, 2],
            "AGRPO_S3_CHECKSUM=none",
        ),
        case("one 403 to a write", vec![once("PUT cas/", forbidden)], [0, 0, 0], ""),
        case(
            "403 to every write",
            vec![Odd::always("PUT", forbidden)],
            [4, 2, 2],
            "the credentials were refused",
        ),
        case(
            "another region",
            vec![Odd::always("", ("400 Bad Request", "AuthorizationHeaderMalformed"))],
            [4, 2, 2],
            "check AWS_REGION",
        ),
        case(
            "no S3 at all",
            vec![Odd::always("", ("404 Not Found", ""))],
            [4, 2, 2],
            "the address of an S3 server",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_servers_are_distinguished_and_end_no_program_for_ever() {
    let redis = RedisServer::start(&[]);
    let url = redis.url();
    for Case { name, odd, is_blind, also, codes, part } in cases() {
        let mut found = vec![];
        for arguments in [
            vec!["doctor"],
            vec!["worker", "--exit-when-idle", "1"],
            vec!["run", "run.toml", "--json"],
        ] {
            let server = Server::start().await;
            server.with(|state| state.overlooks_conditions = is_blind);
            odd.iter().for_each(|odd| server.odd(*odd));
            let endpoint = format!("http://127.0.0.1:{}", server.port);
            let mut environment = vec![
                ("AGRPO_STORE", "s3://results/agrpo"),
                ("AGRPO_REDIS", &url),
                ("AWS_ENDPOINT", &endpoint),
                ("AWS_ACCESS_KEY_ID", "visitor"),
                ("AWS_SECRET_ACCESS_KEY", "hunter2"),
            ];
            environment.extend(&also);
            let program = Program::new(&environment);
            let said = program.run(&arguments);
            let text = format!("{}{}", said.stdout, said.stderr);
            let is_line = |line: &&str| line.starts_with("error:") || line.contains("BAD   store");
            let line = text.lines().find(is_line).unwrap_or("").to_owned();
            let (verb, code) = (arguments[0], said.code);
            println!("| {name} | {verb} | {} | {line} |", code.unwrap_or(-1));
            assert!(codes[found.len()] == 0 || line.contains(part), "{name}: {text}");
            assert!(!text.contains("hunter2") && !text.contains("visitor"), "{text}");
            assert!(
                arguments[0] != "run"
                    || odd.is_empty()
                    || !also.is_empty()
                    || server.with(|state| state.oddities > 0),
                "{name} did not happen"
            );
            found.push(code.unwrap_or(-1));
        }
        assert_eq!(found, codes, "{name}");
    }
}

/// A mistyped address makes no folder, whatever the verb.
#[test]
fn a_mistyped_store_is_refused_and_nothing_is_made() {
    for store in ["s3:/bad", "s3:bad", "S3://bad", "file:/x", "gs://x", "memory:", "http://x"] {
        let program = Program::new(&[]);
        for verb in [&["run", "run.toml"] as &[&str], &["status"], &["doctor"], &["verify"]] {
            let said = program.run(&[verb, &["--store", store]].concat());
            let text = format!("{}{}", said.stdout, said.stderr);
            assert!(text.contains("is not a store"), "{verb:?} {store}: {text}");
            let expected = if verb[0] == "doctor" { 4 } else { 2 };
            assert_eq!(said.code, Some(expected), "{verb:?} {store}: {text}");
        }
        let entries = std::fs::read_dir(program.folder()).unwrap();
        let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["run.toml"], "{store}");
    }
}
