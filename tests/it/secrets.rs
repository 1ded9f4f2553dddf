//! Passwords and keys: how they are passed in, and that no output shows them.

use std::path::Path;

use crate::cli::alone;
use crate::support::program::{Program, RUN};
use crate::support::redis::RedisServer;
use crate::support::s3::S3Server;

const SECRET: &str = "s3cret-never-shown";

/// Whether any file below a folder holds the text.
fn is_in_files(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return is_in_files(&path, text);
        }
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(text.len()).any(|part| part == text.as_bytes())
    })
}

#[test]
fn an_argument_that_holds_a_password_is_refused_with_the_way_to_do_it_right() {
    let url = format!("redis://agrpo:{SECRET}@127.0.0.1:1");
    let joined = format!("--redis={url}");
    let store = format!("s3://KEY:{SECRET}@bucket/prefix");
    let source = format!("task.benchmark.train=https://me:{SECRET}@host/rows.jsonl");
    for (arguments, way) in [
        (vec!["worker", "--redis", &url], "AGRPO_REDIS_PASSWORD_FILE"),
        (vec!["enqueue", "run.toml", &joined], "AGRPO_REDIS_PASSWORD_FILE"),
        (vec!["status", "--store", &store], "AWS_SECRET_ACCESS_KEY_FILE"),
        (vec!["run", "run.toml", "--source", &source], "the run file"),
        // What is no command at all is not repeated either.
        (vec!["wroker", "--rediss", &url], "docs/operations.md"),
    ] {
        let said = alone(&arguments, "");
        assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""));
        assert!(said.stderr.contains("holds a password") && said.stderr.contains(way));
        assert!(!said.stderr.contains(SECRET), "{}", said.stderr);
    }
}

#[test]
fn settings_that_contradict_or_are_not_there_are_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let with_password = format!("redis://:{SECRET}@127.0.0.1:1");
    for (environment, words) in [
        (
            vec![("AGRPO_REDIS_PASSWORD_FILE", "/nowhere/password")],
            "AGRPO_REDIS_PASSWORD_FILE: /nowhere/password cannot be read",
        ),
        (vec![("AWS_SECRET_ACCESS_KEY_FILE", path)], "has to hold one line"),
        (
            vec![("AGRPO_REDIS", &with_password), ("AGRPO_REDIS_PASSWORD", SECRET)],
            "AGRPO_REDIS and AGRPO_REDIS_PASSWORD both hold a password",
        ),
        (vec![("AGRPO_REDIS_CA", "/nowhere/ca.pem")], "AGRPO_REDIS_CA: /nowhere/ca.pem"),
        (
            vec![("AGRPO_STORE", "s3://KEY:s3cret-never-shown@bucket")],
            "AGRPO_STORE holds a password or a key",
        ),
        (
            vec![("AGRPO_STORE", "s3:/u:s3cret-never-shown@bucket")],
            "AGRPO_STORE holds a password or a key",
        ),
        (
            vec![("AWS_ENDPOINT", "http://127.0.0.1:1/?k=s3cret-never-shown")],
            "AWS_ENDPOINT holds a user, a password or a key, or parameters",
        ),
        (
            vec![("AGRPO_STORE", "s3://s3cret-never-shown@bucket")],
            "AGRPO_STORE holds a password or a key",
        ),
        (
            vec![("AWS_ENDPOINT", "http://KEY:s3cret-never-shown@127.0.0.1:1")],
            "AWS_ENDPOINT holds a user, a password or a key",
        ),
        (
            vec![("AWS_ENDPOINT_URL_S3", "http://s3cret-never-shown@127.0.0.1:1")],
            "AWS_ENDPOINT_URL_S3 holds a user, a password or a key",
        ),
    ] {
        let said = Program::new(&environment).run(&["status"]);
        assert_eq!(said.code, Some(2), "{}", said.stderr);
        assert!(said.stderr.contains(words), "{}", said.stderr);
        assert!(!said.stderr.contains(SECRET), "{}", said.stderr);
    }
}

#[test]
fn no_output_log_or_record_holds_a_password() {
    let redis = RedisServer::start(&["--requirepass", SECRET]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let (plain, path) = (redis.url(), file.path().to_str().unwrap());
    let inside = plain.replace("://", &format!("://:{SECRET}@"));
    let wrong = plain.replace("://", &format!("://:{SECRET}-and-more@"));
    for (environment, code) in [
        (vec![("AGRPO_REDIS", plain.as_str()), ("AGRPO_REDIS_PASSWORD_FILE", path)], 0),
        (vec![("AGRPO_REDIS", &plain), ("AGRPO_REDIS_PASSWORD", SECRET)], 0),
        (vec![("AGRPO_REDIS", &inside)], 0),
        (vec![("AGRPO_REDIS", &wrong)], 2),
    ] {
        let mut environment = environment;
        environment.push(("RUST_LOG", "trace"));
        let program = Program::new(&environment);
        let queued = program.run(&["enqueue", "run.toml"]);
        assert_eq!(queued.code, Some(code), "{}", queued.stderr);
        let verbs: &[&[&str]] = &[
            &["worker", "--exit-when-idle", "4", "--log-format", "json"],
            &["doctor"],
            &["doctor", "--json"],
            &["status", "--json"],
            &["show", "bytes"],
        ];
        let said = verbs.iter().map(|arguments| program.run(arguments));
        for said in said.chain([queued]) {
            assert!(!said.stdout.contains(SECRET) && !said.stderr.contains(SECRET));
        }
        assert!(!is_in_files(program.folder(), SECRET), "a record holds the password");
    }
}

/// Passwords in place of a user, in a proxy, in the address of a dataset and in signed parameters.
#[test]
fn no_address_is_shown_with_what_opens_it() {
    let redis = RedisServer::start(&["--requirepass", SECRET]);
    let as_user = redis.url().replace("://", &format!("://{SECRET}@"));
    let program = Program::new(&[("AGRPO_REDIS", &as_user), ("RUST_LOG", "trace")]);
    let verbs: [&[&str]; 5] = [
        &["enqueue", "run.toml"],
        &["worker", "--exit-when-idle", "1"],
        &["doctor"],
        &["doctor", "--json"],
        &["status", "--workers"],
    ];
    for verb in verbs {
        let said = program.run(verb);
        let text = format!("{}{}", said.stdout, said.stderr);
        assert!(!text.contains(SECRET), "{verb:?}: {text}");
        assert!(text.contains("a user without a password"), "{verb:?}: {text}");
    }
    // A proxy that is not there, on the way to a bucket and to a dataset.
    let proxy = format!("http://me:{SECRET}@127.0.0.1:1");
    let program = Program::new(&[
        ("HTTP_PROXY", &proxy),
        ("HTTPS_PROXY", &proxy),
        ("AGRPO_STORE", ".agrpo"),
        ("RUST_LOG", "trace"),
    ]);
    for address in [
        format!("http://me:{SECRET}@127.0.0.1:1/rows.jsonl"),
        format!("https://{SECRET}@127.0.0.1:1/rows.jsonl"),
        format!(
            "https://127.0.0.1:1/rows.jsonl?X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}"
        ),
        format!("s3://{SECRET}@bucket/rows.jsonl"),
    ] {
        let task = RUN.replace(
            "[task.countdown]\nnumbers = 2\nmax_target = 18\nprompt_tokens = 6\n",
            &format!(
                "[reward]\nrules = {{ same = {{ kind = \"exact\" }} }}\nweights = {{ same = 1.0 }}\n\
                 [task.dataset]\ntrain = {{ from = \"{address}\" }}\ntest = {{ from = \"{address}\" }}\n\
                 prompt = \"{{{{ word }}}}\"\nanswer = \"{{{{ word }}}}\"\nprompt_tokens = 4\n"
            ),
        );
        std::fs::write(program.folder().join("own.toml"), task).unwrap();
        let said = program.run(&["run", "own.toml"]);
        assert!(said.stderr.contains("task.dataset.train: "), "{}", said.stderr);
        assert!([Some(2), Some(4)].contains(&said.code), "{}", said.stderr);
        assert!(!said.stdout.contains(SECRET) && !said.stderr.contains(SECRET), "{}", said.stderr);
    }
    let mut program = Program::new(&[("HTTP_PROXY", &proxy), ("RUST_LOG", "trace")]);
    for (name, value) in [
        ("AGRPO_STORE", "s3://bucket/x"),
        ("AWS_ENDPOINT", "http://s3.invalid:9"),
        ("AWS_ACCESS_KEY_ID", SECRET),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
    ] {
        program.set(name, value);
    }
    let said = program.run(&["status"]);
    assert_eq!(said.code, Some(4), "{}", said.stderr);
    assert!(!said.stderr.contains(SECRET), "{}", said.stderr);
}

#[test]
fn no_output_holds_the_keys_of_a_bucket() {
    let s3 = S3Server::start();
    let mut environment = s3.environment().to_vec();
    let secret = environment.iter().find(|(name, _)| *name == "AWS_SECRET_ACCESS_KEY").unwrap().1;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, secret).unwrap();
    let path = file.path().to_str().unwrap();
    environment.retain(|(name, _)| *name != "AWS_SECRET_ACCESS_KEY");
    environment.extend([("AWS_SECRET_ACCESS_KEY_FILE", path), ("RUST_LOG", "trace")]);
    let program = Program::new(&environment);
    for arguments in [
        &["run", "run.toml", "--json"] as &[&str],
        &["doctor", "--json"],
        &["status", "--json"],
        &["show", "bytes", "--json"],
    ] {
        let said = program.run(arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.stderr);
        assert!(!said.stdout.contains(secret) && !said.stderr.contains(secret), "{arguments:?}");
    }
}
