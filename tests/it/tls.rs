//! A Redis behind TLS with a user of few rights, as docs/operations.md sets one up.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::support::http::free_address;
use crate::support::program::{Program, Said};
use crate::support::redis::RedisServer;

const PASSWORD: &str = "pass-of-the-acl-user";
const ACL: &str = include_str!("../../infra/redis.acl.example");

/// A Redis with TLS beside its plain port, and the authority that signed its certificate.
struct Guarded {
    redis: RedisServer,
    tls: String,
    files: tempfile::TempDir,
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = CertificateParams::new(vec![]).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap()
}

impl Guarded {
    fn start() -> Self {
        let files = tempfile::tempdir().unwrap();
        let (ours, other) = (authority(), authority());
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &ours).unwrap();
        let write = |name: &str, text: &str| {
            let path = files.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let ca = write("ca.pem", &ours.pem());
        write("other.pem", &other.pem());
        write("password", &format!("{PASSWORD}\n"));
        let certificate = write("redis.pem", &certificate.pem());
        let key = write("redis.key", &key.serialize_pem());
        let port = free_address().port().to_string();
        let mut arguments = vec!["--tls-port", &port, "--tls-cert-file", &certificate];
        arguments.extend(["--tls-key-file", &key, "--tls-ca-cert-file", &ca]);
        arguments.extend(["--tls-auth-clients", "no", "--user", "default", "off"]);
        arguments.extend(["--bind", "127.0.0.1", "127.0.0.2"]);
        // As an operator would write it into the server's file.
        let acl = ACL.replace("PASSWORD", PASSWORD);
        arguments.push("--user");
        arguments.extend(acl.split_whitespace().skip(1));
        let redis = RedisServer::start(&arguments);
        Self { redis, tls: format!("rediss://agrpo@127.0.0.1:{port}"), files }
    }

    fn path(&self, name: &str) -> String {
        self.files.path().join(name).to_str().unwrap().to_owned()
    }

    fn program(&self, url: &str, authority: Option<&str>) -> Program {
        let (password, authority) = (self.path("password"), authority.map(|name| self.path(name)));
        let mut environment = vec![
            ("AGRPO_REDIS", url),
            ("AGRPO_REDIS_PASSWORD_FILE", &password),
            ("RUST_LOG", "trace"),
        ];
        environment.extend(authority.as_deref().map(|path| ("AGRPO_REDIS_CA", path)));
        Program::new(&environment)
    }
}

fn quiet(said: &Said) {
    assert!(!format!("{said:?}").contains(PASSWORD), "a password was shown");
}

#[test]
fn a_run_goes_through_tls_with_the_documented_rights_alone() {
    let guarded = Guarded::start();
    let program = guarded.program(&guarded.tls, Some("ca.pem"));
    let queued = program.run(&["enqueue", "run.toml"]);
    let worked = program.run(&["worker", "--exit-when-idle", "6"]);
    let (checked, status) = (program.run(&["doctor"]), program.run(&["status", "--json"]));
    for said in [&queued, &worked, &checked, &status] {
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        quiet(said);
    }
    assert_eq!(program.policy().1, "done");
    assert!(!worked.stderr.contains("NOPERM"), "{}", worked.stderr);

    let plain = guarded.redis.url().replace("://", &format!("://agrpo:{PASSWORD}@"));
    let mut connection = redis::Client::open(plain).unwrap().get_connection().unwrap();
    for command in [
        "FLUSHALL",
        "CONFIG GET *",
        "KEYS *",
        "ACL LIST",
        "SET elsewhere 1",
        "GET elsewhere",
        "PUBLISH elsewhere 1",
        "SHUTDOWN",
    ] {
        let mut words = command.split(' ');
        let mut call = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            call.arg(word);
        });
        let error = call.query::<redis::Value>(&mut connection).unwrap_err();
        assert_eq!(error.code(), Some("NOPERM"), "{command}: {error}");
    }
}

#[test]
fn who_is_not_trusted_is_refused_in_words() {
    let guarded = Guarded::start();
    let plain = guarded.redis.url().replace("redis://", "rediss://agrpo@");
    let by_name = guarded.tls.replace("127.0.0.1", "localhost");
    let elsewhere = guarded.tls.replace("127.0.0.1", "127.0.0.2");
    for (url, authority, code, words) in [
        (&guarded.tls, Some("other.pem"), 2, "name the authority's file in AGRPO_REDIS_CA"),
        (&guarded.tls, None, 2, "signed by an authority that is not trusted here"),
        (
            &plain,
            Some("ca.pem"),
            4,
            "silent for 10 s; a port without TLS does not answer rediss://",
        ),
        (&elsewhere, Some("ca.pem"), 2, "its certificate is for another host"),
        (&by_name, Some("ca.pem"), 0, ""),
    ] {
        let said = guarded.program(url, authority).run(&["enqueue", "run.toml"]);
        quiet(&said);
        assert_eq!(said.code, Some(code), "{}", said.stderr);
        assert!(said.stderr.contains(words), "{words}: {}", said.stderr);
    }
}
