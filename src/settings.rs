//! The environment, read once: the only file that names a variable. A flag wins over a variable, a variable over the
//! default. Secrets are handed on and never shown.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use agrpo_fleet::Access;
use agrpo_store::redact::holds_secret;
use bytesize::ByteSize;

use crate::{exit::Failure, secrets};

const STORE: &str = "AGRPO_STORE";
const REDIS: &str = "AGRPO_REDIS";
const REDIS_PASSWORD: &str = "AGRPO_REDIS_PASSWORD";
/// PEM file of the certificate authorities to trust for a Redis behind TLS.
const REDIS_CA: &str = "AGRPO_REDIS_CA";
/// The token for live pages that other machines can reach.
pub(crate) const SERVE_TOKEN: &str = "AGRPO_SERVE_TOKEN";
const METRICS: &str = "AGRPO_METRICS";
/// Host names that requests for metrics may use, beside the machine's own.
const METRICS_HOSTS: &str = "AGRPO_METRICS_HOSTS";
/// Secrets that may also be given as a file, in the variable with the ending `_FILE`.
const SECRETS: [&str; 5] = [
    REDIS_PASSWORD,
    SERVE_TOKEN,
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
];
const FILE: &str = "_FILE";
/// A libtorch 2.11.0: to build against, and to compute on a GPU with.
pub(crate) const LIBTORCH: &str = "AGRPO_LIBTORCH";
/// The fail points that the fault suite arms, and the file in which it counts what is computed.
#[cfg(debug_assertions)]
pub(crate) const FAIL_POINTS: &str = "FAILPOINTS";
#[cfg(debug_assertions)]
pub(crate) const FAULT_LEDGER: &str = "AGRPO_FAULT_LEDGER";
pub(crate) const VISIBLE_GPUS: &str = "CUDA_VISIBLE_DEVICES";
pub(crate) const LOG_FILTER: &str = "RUST_LOG";
/// Turns colour off (<https://no-color.org>).
pub(crate) const NO_COLOR: &str = "NO_COLOR";
/// The class that the last restart was for, and the text of the run file, since a pipe can be read only once.
pub(crate) const NUMERICS: &str = "AGRPO_NUMERICS";
pub(crate) const RUN_TEXT: &str = "AGRPO_RUN_TEXT";
/// Where blobs of a bucket are kept for all workers of the host, and how many bytes of them.
const CACHE: &str = "AGRPO_CACHE_DIR";
const CACHE_SIZE: &str = "AGRPO_CACHE_SIZE";
/// The checksum algorithm of uploads to a bucket.
const S3_CHECKSUM: &str = "AGRPO_S3_CHECKSUM";
const OURS: &str = "AGRPO_";
/// Variables that people set.
const KNOWN: [&str; 11] = [
    STORE,
    REDIS,
    REDIS_PASSWORD,
    REDIS_CA,
    SERVE_TOKEN,
    METRICS,
    METRICS_HOSTS,
    LIBTORCH,
    CACHE,
    CACHE_SIZE,
    S3_CHECKSUM,
];
/// Endings of `AGRPO_` in variables of the restart, the build, the tests and `infra/`; they cause no warning.
const ELSEWHERE: &str = "CACHE CLOCK_OFF_S COMMIT ENV FAULT_LEDGER GOLDEN NUMERICS REDIS_PORT RUN_TEXT S3_PORT \
                         SHARED STATE WEED WORKER_ARGS";
const DEFAULT_STORE: &str = ".agrpo";
const DEFAULT_REDIS: &str = "redis://127.0.0.1:6379";

/// The environment's variables.
#[derive(Default)]
pub(crate) struct Settings {
    variables: BTreeMap<String, String>,
    redis_authority: Option<Vec<u8>>,
}

/// A setting, and whether it was given.
#[derive(Debug, Clone)]
pub(crate) struct Resolved<T = String> {
    pub(crate) value: T,
    /// False if it is the default.
    pub(crate) given: bool,
}

impl Settings {
    /// Reads the environment of this process.
    pub(crate) fn from_environment() -> Result<Self, Failure> {
        Self::from_variables(std::env::vars_os())
    }

    pub(crate) fn from_variables(
        all: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Failure> {
        let mut variables = BTreeMap::new();
        for (name, value) in all {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => variables.extend((!value.is_empty()).then_some((name, value))),
                Err(_) if name.starts_with(OURS) || name.starts_with("AWS_") => {
                    return Err(Failure::usage(format!("the variable {name} is not UTF-8 text")));
                }
                Err(_) => {}
            }
        }
        for name in SECRETS {
            let from = format!("{name}{FILE}");
            let Some(path) = variables.get(&from) else { continue };
            let secret = secrets::read(&from, path)?;
            if variables.insert(name.to_owned(), secret).is_some() {
                return Err(Failure::usage(format!("{name} and {from} are both set: keep one")));
            }
        }
        let authority = variables.get(REDIS_CA);
        let redis_authority =
            authority.map(|path| secrets::read_bytes(REDIS_CA, path)).transpose()?;
        // object_store would send them with every request, and show them in every error.
        let keys = "the keys belong into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
        let endpoint = variables.iter().find(|(name, value)| {
            let is_endpoint = name.starts_with("AWS_") && name.contains("ENDPOINT");
            is_endpoint && (value.contains(['@', '?', '#']) || holds_secret(value))
        });
        if let Some((name, _)) = endpoint {
            let message = format!("{name} holds a user, a password or a key, or parameters");
            let hint = format!("name scheme, host and port alone; {keys}");
            return Err(Failure::usage(message).hint(hint));
        }
        if variables.get(STORE).is_some_and(|store| holds_secret(store)) {
            return Err(Failure::usage(format!("{STORE} holds a password or a key"))
                .hint(format!("name the bucket alone; {keys}")));
        }
        if variables.contains_key(REDIS_PASSWORD)
            && variables.get(REDIS).is_some_and(|redis| holds_secret(redis))
        {
            let message = format!("{REDIS} and {REDIS_PASSWORD} both hold a password: keep one");
            return Err(Failure::usage(message));
        }
        Ok(Self { variables, redis_authority })
    }

    /// A variable that is set and not empty.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Warnings about unknown variables with our prefix. A restarted process does not repeat them.
    pub(crate) fn unknown_variables(&self) -> Vec<String> {
        if self.variables.contains_key(NUMERICS) {
            return vec![];
        }
        let of_files = SECRETS.map(|name| format!("{name}{FILE}"));
        let known = KNOWN.into_iter().chain(of_files.iter().map(String::as_str));
        let known: Vec<&str> = known.filter_map(|name| name.strip_prefix(OURS)).collect();
        let is_known =
            |name: &&str| known.contains(name) || ELSEWHERE.split(' ').any(|other| other == *name);
        let warning = |name: &str| {
            let suggestion = agrpo_spec::suggestion(name, known.iter().copied());
            let hint = suggestion.map(|known| format!(": did you mean {OURS}{known}?"));
            let hint = hint.unwrap_or_default();
            format!("the variable {OURS}{name} is not known and changes nothing{hint}")
        };
        let names = self.variables.keys().filter_map(|name| name.strip_prefix(OURS));
        names.filter(|name| !is_known(name)).map(warning).collect()
    }

    /// Where grading programs are searched.
    pub(crate) fn path(&self) -> &str {
        self.variable("PATH").unwrap_or("/usr/local/bin:/usr/bin:/bin")
    }

    /// The store: `--store`, `AGRPO_STORE`, `.agrpo`.
    pub(crate) fn store(&self, flag: Option<&str>) -> Resolved {
        self.resolve(flag, STORE, DEFAULT_STORE)
    }

    /// The Redis server: `--redis`, `AGRPO_REDIS`, the one on this machine; with its password if that is
    /// set separately, and the authorities that TLS trusts.
    pub(crate) fn redis(&self, flag: Option<&str>) -> Resolved<Access> {
        let Resolved { value, given } = self.resolve(flag, REDIS, DEFAULT_REDIS);
        let password = self.variable(REDIS_PASSWORD).map(str::to_owned);
        let authority = self.redis_authority.clone();
        Resolved { value: Access { url: value, password, authority }, given }
    }

    /// Where metrics are served: `--metrics`, `AGRPO_METRICS`, nowhere.
    pub(crate) fn metrics(&self, flag: Option<SocketAddr>) -> Result<Option<SocketAddr>, Failure> {
        let expected = "expected address and port, as in 127.0.0.1:9180";
        self.read(flag, METRICS, |text| text.parse().map_err(|_| expected))
    }

    /// Host names that requests for metrics may use: `AGRPO_METRICS_HOSTS`.
    pub(crate) fn metrics_hosts(&self) -> Vec<String> {
        let names = self.variable(METRICS_HOSTS).unwrap_or_default().split(',').map(str::trim);
        names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    /// The folder for a bucket's blobs: `--cache`, `AGRPO_CACHE_DIR`, systemd's `CacheDirectory`, the
    /// user's own; none if no variable names one.
    pub(crate) fn cache(&self, flag: Option<&Path>) -> Option<PathBuf> {
        let given = flag.map(Path::to_owned).or_else(|| self.variable(CACHE).map(PathBuf::from));
        // systemd lists several, and ours is the first.
        let of_unit = self.variable("CACHE_DIRECTORY").and_then(|all| all.split(':').next());
        let of_user = || {
            let home = || self.variable("HOME").map(|home| Path::new(home).join(".cache"));
            self.variable("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)
        };
        given
            .or_else(|| of_unit.map(|folder| Path::new(folder).join("blobs")))
            .or_else(|| of_user().map(|folder| folder.join("agrpo/blobs")))
    }

    /// The most bytes in it: `--cache-size`, `AGRPO_CACHE_SIZE`; none if neither is given.
    pub(crate) fn cache_size(&self, flag: Option<u64>) -> Result<Option<u64>, Failure> {
        self.read(flag, CACHE_SIZE, bytes)
    }

    /// The `AWS_*` variables and our own, for the store.
    pub(crate) fn object_store_options(&self) -> Vec<(String, String)> {
        self.variables
            .iter()
            .filter(|(name, _)| name.starts_with("AWS_") || *name == S3_CHECKSUM)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// The user's name, for records that people read.
    pub(crate) fn user(&self) -> &str {
        self.variable("USER").or_else(|| self.variable("LOGNAME")).unwrap_or("unknown")
    }

    /// The flag, or what the variable holds instead.
    fn read<T>(
        &self,
        flag: Option<T>,
        variable: &str,
        read: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Result<Option<T>, Failure> {
        let Some(text) = self.variable(variable).filter(|_| flag.is_none()) else {
            return Ok(flag);
        };
        let refuse = |expected| Failure::usage(format!("{variable}={text}: {expected}"));
        read(text).map(Some).map_err(refuse)
    }

    fn resolve(&self, flag: Option<&str>, variable: &str, default: &str) -> Resolved {
        let given = flag.or_else(|| self.variable(variable));
        Resolved { value: given.unwrap_or(default).to_owned(), given: given.is_some() }
    }
}

/// A number of bytes, as `--cache-size` and its variable take it.
pub(crate) fn bytes(text: &str) -> Result<u64, &'static str> {
    let size = text.parse::<ByteSize>().map(|size| size.as_u64());
    size.map_err(|_| "expected a number of bytes, as in 0, 50000000 or 64GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Settings::from_variables(pairs.iter().map(|(n, v)| (n.into(), v.into()))).unwrap()
    }

    #[test]
    fn a_flag_wins_over_a_variable_and_a_variable_over_the_default() {
        let set = settings(&[("AGRPO_STORE", "s3://bucket"), ("AGRPO_REDIS", "")]);
        assert_eq!(set.store(Some("here")).value, "here");
        assert_eq!(set.store(None).value, "s3://bucket");
        assert!(!set.redis(None).given, "an empty variable is as good as none");
    }

    #[test]
    fn the_cache_is_where_a_setting_or_a_convention_puts_it() {
        let home = [("HOME", "/home/a")];
        let folder = |set: &[(&str, &str)]| settings(set).cache(None);
        assert_eq!(folder(&[]), None);
        assert_eq!(folder(&home), Some("/home/a/.cache/agrpo/blobs".into()));
        let of_user = [home[0], ("XDG_CACHE_HOME", "/big")];
        assert_eq!(folder(&of_user), Some("/big/agrpo/blobs".into()));
        let of_unit = [of_user[1], ("CACHE_DIRECTORY", "/var/cache/agrpo:/var/cache/x")];
        assert_eq!(folder(&of_unit), Some("/var/cache/agrpo/blobs".into()));
        let named = [of_unit[1], (CACHE, "/named")];
        assert_eq!(folder(&named), Some("/named".into()));
        assert_eq!(settings(&named).cache(Some(Path::new("here"))), Some("here".into()));
    }

    #[test]
    fn the_cache_s_size_is_a_number_of_bytes() {
        let size = |text| settings(&[(CACHE_SIZE, text)]).cache_size(None).ok().flatten();
        assert_eq!(size("0"), Some(0));
        assert_eq!(size("64GiB"), Some(64 << 30));
        assert_eq!(settings(&[]).cache_size(None).unwrap(), None);
        assert_eq!(settings(&[(CACHE_SIZE, "1")]).cache_size(Some(2)).unwrap(), Some(2));
        let wrong = settings(&[(CACHE_SIZE, "much")]).cache_size(None).unwrap_err();
        assert_eq!(
            wrong.message,
            "AGRPO_CACHE_SIZE=much: expected a number of bytes, as in 0, 50000000 or 64GiB"
        );
    }

    #[test]
    fn an_unknown_variable_is_reported_with_a_suggestion() {
        let warnings = |name: &str| settings(&[(name, "x")]).unknown_variables();
        assert_eq!(
            warnings("AGRPO_STOR"),
            ["the variable AGRPO_STOR is not known and changes nothing: did you mean AGRPO_STORE?"]
        );
        assert_eq!(
            warnings("AGRPO_ZEBRA"),
            ["the variable AGRPO_ZEBRA is not known and changes nothing"]
        );
        assert!(warnings("STORE").is_empty());
        assert!(warnings("AGRPO_STATE").is_empty());
    }

    #[test]
    fn an_endpoint_that_holds_a_secret_is_refused_and_not_repeated() {
        for (name, value) in [
            ("AWS_ENDPOINT", "http://KEY:s3cret@minio:9000"),
            ("AWS_ENDPOINT_URL", "http://s3cret@minio:9000"),
            ("AWS_ENDPOINT_URL_S3", "KEY:s3cret@minio:9000"),
            ("AWS_ENDPOINT_URL", "http://KEY:s3/cr?et@minio:9000"),
            ("AWS_ENDPOINT_URL", "http://minio:9000/x?k=s3cret"),
            ("AWS_ENDPOINT", "http://minio:9000/#s3cret"),
        ] {
            let refused = Settings::from_variables([(name.into(), value.into())]);
            let text = refused.err().unwrap().to_string();
            assert!(text.contains(&format!("{name} holds a user")) && !text.contains("s3cret"));
        }
        settings(&[("AWS_ENDPOINT", "http://[::1]:9000"), ("HTTPS_PROXY", "http://u:p@proxy:1")]);
    }

    #[test]
    fn only_aws_variables_reach_the_store() {
        let set = settings(&[("AWS_REGION", "eu"), ("HOME", "/root")]);
        assert_eq!(set.object_store_options(), [("AWS_REGION".to_owned(), "eu".to_owned())]);
    }
}
