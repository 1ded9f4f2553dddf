//! The environment, read once: the only file that names a variable.
//!
//! A flag wins over a variable, a variable over the default. Secrets are handed on and never shown.
//! Nothing here is written back: the numerics pins reach libtorch through `numerics.rs`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use agrpo_fleet::Access;
use agrpo_store::redact::holds_secret;
use bytesize::ByteSize;

use crate::exit::Failure;
use crate::secrets;

const STORE: &str = "AGRPO_STORE";
const REDIS: &str = "AGRPO_REDIS";
const REDIS_PASSWORD: &str = "AGRPO_REDIS_PASSWORD";
/// Certificates of the authorities that a Redis behind TLS is trusted by, in PEM.
const REDIS_CA: &str = "AGRPO_REDIS_CA";
/// The token for live pages that other machines can reach.
const SERVE_TOKEN: &str = "AGRPO_SERVE_TOKEN";
/// The address at which metrics are served.
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
const LIBTORCH: &str = "AGRPO_LIBTORCH";
#[cfg(debug_assertions)]
const FAIL_POINTS: &str = "FAILPOINTS";
#[cfg(debug_assertions)]
const FAULT_LEDGER: &str = "AGRPO_FAULT_LEDGER";
const VISIBLE_GPUS: &str = "CUDA_VISIBLE_DEVICES";
/// Where blobs of a bucket are kept for all workers of the host, and how many bytes of them.
const CACHE: &str = "AGRPO_CACHE_DIR";
const CACHE_SIZE: &str = "AGRPO_CACHE_SIZE";
/// By which checksum a bucket checks uploads.
const S3_CHECKSUM: &str = "AGRPO_S3_CHECKSUM";
/// How the names of our variables begin.
const OURS: &str = "AGRPO_";
/// Variables that are read here, and those of the restart.
const KNOWN: [&str; 12] = [
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
    "AGRPO_NUMERICS",
];
/// Variables of the restart, the build, the tests and `infra/`: not read here, and no mistake.
const ELSEWHERE: [&str; 13] = [
    "AGRPO_CACHE",
    "AGRPO_CLOCK_OFF_S",
    "AGRPO_COMMIT",
    "AGRPO_ENV",
    "AGRPO_FAULT_LEDGER",
    "AGRPO_GOLDEN",
    "AGRPO_REDIS_PORT",
    "AGRPO_RUN_TEXT",
    "AGRPO_S3_PORT",
    "AGRPO_SHARED",
    "AGRPO_STATE",
    "AGRPO_WEED",
    "AGRPO_WORKER_ARGS",
];
const DEFAULT_STORE: &str = ".agrpo";
const DEFAULT_REDIS: &str = "redis://127.0.0.1:6379";

/// The environment's variables.
pub(crate) struct Settings {
    variables: BTreeMap<String, String>,
    redis_authority: Option<Vec<u8>>,
}

/// A setting, and whether it was given.
#[derive(Debug, Clone)]
pub(crate) struct Resolved<T = String> {
    /// The value in force.
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
                Ok(value) if value.is_empty() => {}
                Ok(value) => {
                    variables.insert(name, value);
                }
                Err(_) if name.starts_with("AGRPO_") || name.starts_with("AWS_") => {
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
        let redis_authority = match variables.get(REDIS_CA) {
            Some(path) => Some(secrets::read_bytes(REDIS_CA, path)?),
            None => None,
        };
        // The library would send them with every request, and show them in every error.
        let endpoint = variables.iter().find(|(name, value)| {
            let is_endpoint = name.starts_with("AWS_") && name.contains("ENDPOINT");
            is_endpoint && (value.contains(['@', '?', '#']) || holds_secret(value))
        });
        if let Some((name, _)) = endpoint {
            return Err(Failure::usage(format!("{name} holds a user, a password or a key, or parameters"))
                .hint("name scheme, host and port alone; the keys belong into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
        }
        if variables.get(STORE).is_some_and(|store| holds_secret(store)) {
            return Err(Failure::usage(format!("{STORE} holds a password or a key"))
                .hint("name the bucket alone; the keys belong into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
        }
        let both = variables.contains_key(REDIS_PASSWORD)
            && variables.get(REDIS).is_some_and(|redis| holds_secret(redis));
        if both {
            return Err(Failure::usage(format!(
                "{REDIS} and {REDIS_PASSWORD} both hold a password: keep one"
            )));
        }
        Ok(Self { variables, redis_authority })
    }

    /// A variable that is set and not empty.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Warnings about variables that begin like ours and are not known, each with the likely intended one. A
    /// process after a restart repeats none.
    pub(crate) fn unknown_variables(&self) -> Vec<String> {
        if self.variables.contains_key("AGRPO_NUMERICS") {
            return vec![];
        }
        let of_files = SECRETS.map(|name| format!("{name}{FILE}"));
        let read = || KNOWN.into_iter().chain(of_files.iter().map(String::as_str));
        let names = self.variables.keys().filter(|name| name.starts_with(OURS));
        names
            .filter(|name| !read().chain(ELSEWHERE).any(|known| known == *name))
            .map(|name| {
                let word = |name: &'_ str| name.strip_prefix(OURS).unwrap_or_default().to_owned();
                let known: Vec<String> = read().map(word).collect();
                let meant = agrpo_spec::nearest(&word(name), known.iter().map(String::as_str));
                let meant = meant.map(|meant| format!(": did you mean {OURS}{meant}?"));
                format!(
                    "the variable {name} is not known and changes nothing{}",
                    meant.unwrap_or_default()
                )
            })
            .collect()
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
        let access = Access::from(&value)
            .with_password(self.variable(REDIS_PASSWORD).map(str::to_owned))
            .with_authority(self.redis_authority.clone());
        Resolved { value: access, given }
    }

    /// The token of the live pages, where one is given.
    pub(crate) fn serve_token(&self) -> Option<&str> {
        self.variable(SERVE_TOKEN)
    }

    /// Where metrics are served: `--metrics`, `AGRPO_METRICS`, nowhere.
    pub(crate) fn metrics(&self, flag: Option<SocketAddr>) -> Result<Option<SocketAddr>, Failure> {
        let Some(text) = self.variable(METRICS).filter(|_| flag.is_none()) else { return Ok(flag) };
        text.parse().map(Some).map_err(|_| {
            Failure::usage(format!(
                "{METRICS}={text}: expected address and port, as in 127.0.0.1:9180"
            ))
        })
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
        let given = || self.variable(CACHE_SIZE).map(|text| (text, bytes(text)));
        match (flag, given()) {
            (Some(size), _) => Ok(Some(size)),
            (None, None) => Ok(None),
            (None, Some((_, Ok(size)))) => Ok(Some(size)),
            (None, Some((text, Err(expected)))) => {
                Err(Failure::usage(format!("{CACHE_SIZE}={text}: {expected}")))
            }
        }
    }

    /// The folder of a CUDA build of libtorch: `AGRPO_LIBTORCH`.
    pub(crate) fn libtorch(&self) -> Option<&str> {
        self.variable(LIBTORCH)
    }

    /// The fail points that the fault suite arms.
    #[cfg(debug_assertions)]
    pub(crate) fn fail_points(&self) -> Option<&str> {
        self.variable(FAIL_POINTS)
    }

    /// The file in which the fault suite counts what is computed.
    #[cfg(debug_assertions)]
    pub(crate) fn fault_ledger(&self) -> Option<&str> {
        self.variable(FAULT_LEDGER)
    }

    /// The GPUs that CUDA counts.
    pub(crate) fn visible_gpus(&self) -> Option<&str> {
        self.variable(VISIBLE_GPUS)
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
        self.variable("USER").or_else(|| self.variable("LOGNAME")).unwrap_or("somebody")
    }

    /// The filter of `RUST_LOG`.
    pub(crate) fn log_filter(&self) -> Option<&str> {
        self.variable("RUST_LOG")
    }

    /// Whether colour is turned off (<https://no-color.org>).
    pub(crate) fn no_color(&self) -> bool {
        self.variable("NO_COLOR").is_some()
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
            wrong.message(),
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
