//! The connection to Redis. Waits while Redis stalls, and never shows a password.
//!
//! redis-rs waits half a second for an answer, which would end a worker at every stall; here an answer may take ten.
//! Messages name host and port, never credentials. Explains errors, and logs which values scripts corrected. The other
//! files know what Redis holds.

pub(crate) mod diagnosis;
pub(crate) mod refusal;

use std::sync::{Arc, Mutex};
use std::{collections::BTreeSet, time::Duration};

use agrpo_spec::Message;
use agrpo_store::{JobsError, locked, retry::pauses};
use backon::BackoffBuilder;
use redis::aio::{
    ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection,
};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, FromRedisValue, IntoConnectionInfo,
    Pipeline, RedisError, RedisResult, Script, ScriptInvocation, TlsCertificates,
};
use tokio::time::{Instant, sleep, timeout_at};

use self::refusal::{Meaning, Refusal, distrust, explain, met, refusal, refuses};
use crate::{Result, coordination::keys::Keys};

/// How long one answer may take.
const RESPONSE: Duration = Duration::from_secs(10);
/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long `connect` retries.
const RETRY_FOR: Duration = Duration::from_secs(10);
/// How long it retries where the connection is refused: long enough for a Redis that was just started.
const RETRY_REFUSED_FOR: Duration = Duration::from_secs(3);

/// Corrected values are logged this many times at most.
const MOST_NOTES: usize = 100;

/// A script, after the functions that all of them share. It ends with `return answer(...)`.
pub(crate) fn script(text: &str) -> Script {
    Script::new(&format!("{}\n{text}", include_str!("redis/prelude.lua")))
}

/// An address and what belongs to it. A plain address makes one by `into`.
#[derive(Clone, Default)]
pub struct Access {
    /// `redis://[[user]:password@]host[:port][/database]`, or `rediss://` for TLS.
    pub url: String,
    /// Used instead of the address' own.
    pub password: Option<String>,
    /// Certificates in PEM of the authorities that are trusted, and no others; `None` trusts the system's.
    pub authority: Option<Vec<u8>>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

impl<T: AsRef<str> + ?Sized> From<&T> for Access {
    fn from(url: &T) -> Self {
        Self { url: url.as_ref().to_owned(), ..Self::default() }
    }
}

impl Access {
    fn client(&self) -> RedisResult<Client> {
        let mut info = self.url.as_str().into_connection_info()?;
        if let Some(password) = &self.password {
            let settings = info.redis_settings().clone().set_password(password);
            info = info.set_redis_settings(settings);
        }
        if !self.url.starts_with("rediss://") {
            return Client::open(info);
        }
        let certificates = TlsCertificates { client_tls: None, root_cert: self.authority.clone() };
        Client::build_with_tls(info, certificates)
    }
}

/// The Redis through which workers find each other. Cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    pub(crate) client: Client,
    connection: ConnectionManager,
    address: String,
    pub(crate) keys: Keys,
    /// Notes of scripts that were logged.
    noted: Arc<Mutex<BTreeSet<String>>>,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fleet({})", self.address)
    }
}

impl Fleet {
    /// Connects to `redis://[[user]:password@]host[:port][/database]`, or `rediss://` for TLS.
    ///
    /// Unavailable where no server answers within ten seconds, Invalid for a URL that is none, for refused
    /// credentials and for a server that TLS does not trust. No error holds the password.
    pub async fn connect(access: impl Into<Access>) -> Result<Self> {
        let client = access.into().client().map_err(|error| {
            let text = format!(
                "the Redis URL cannot be used ({error}): expected \
                 redis://[[user]:password@]host[:port][/database], or rediss:// for TLS; set AGRPO_REDIS"
            );
            JobsError::Invalid(Message::caused_by(text, error))
        })?;
        let address = client.get_connection_info().addr().to_string();
        await_answer(&client, &address).await?;
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(RESPONSE))
            .set_connection_timeout(Some(CONNECT))
            .set_number_of_retries(4)
            .set_max_delay(Duration::from_secs(1));
        let connected = client.get_connection_manager_with_config(config).await;
        let connection = connected.map_err(|error| no_answer(&address, Message::of(error)))?;
        let (keys, noted) = (Keys::default(), Arc::default());
        Ok(Self { client, connection, address, keys, noted })
    }

    /// The same Redis under names that nothing else has, for a trial.
    pub(crate) fn on_trial(&self, unique: &str) -> Self {
        Self { keys: Keys::of_trial(unique), ..self.clone() }
    }

    /// Host and port, for people.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn connection(&self) -> ConnectionManager {
        self.connection.clone()
    }

    pub(crate) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        self.explained(command.query_async(&mut self.connection()).await).await
    }

    pub(crate) async fn ask_all<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T> {
        self.explained(commands.query_async(&mut self.connection()).await).await
    }

    pub(crate) async fn invoke<T: FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Result<T> {
        self.explained(self.invoke_on(&mut self.connection(), call).await).await
    }

    /// Runs a script on any connection. Logs which values it corrected, each once.
    pub(crate) async fn invoke_on<T: FromRedisValue>(
        &self,
        connection: &mut impl ConnectionLike,
        call: &ScriptInvocation<'_>,
    ) -> RedisResult<T> {
        let (answer, notes) = call.invoke_async::<(T, Vec<String>)>(connection).await?;
        for note in notes {
            let mut noted = locked(&self.noted);
            if noted.len() < MOST_NOTES && noted.insert(note.clone()) {
                tracing::warn!(redis = self.address, "{note}");
            }
        }
        Ok(answer)
    }

    /// An answer, or its error explained.
    pub(crate) async fn explained<T>(&self, answer: RedisResult<T>) -> Result<T> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.failed(&error).await),
        }
    }

    pub(crate) async fn failed(&self, error: &RedisError) -> JobsError {
        self.meaning(refusal(error), met(error)).await
    }

    /// Explains a refusal with this text. Looks for the key of a wrong type and for the missing right, since Redis
    /// names neither.
    pub(crate) async fn meaning(&self, refusal: Option<Meaning>, met: Message) -> JobsError {
        let address = &self.address;
        let named = match refusal {
            Some((Refusal::WrongType, _)) => {
                let connection = &mut self.connection();
                diagnosis::wrong_types(&self.keys, address, connection).await.ok().flatten()
            }
            Some((Refusal::Rights, _)) => {
                let user = self.client.get_connection_info().redis_settings().username();
                let user = user.unwrap_or("default");
                diagnosis::lacking(&mut self.connection(), user, address, &met).await
            }
            _ => None,
        };
        if let Some(error) = named {
            return error;
        }
        let Some(refusal) = refusal else {
            return JobsError::Unavailable(met.reworded(|met| {
                format!(
                    "Redis at {address} was lost ({met}): finished stages are safe in the store; start the worker \
                     again once Redis answers"
                )
            }));
        };
        explain(refusal, address, met)
    }
}

/// Retries until a server answers or refuses, or the time is over.
async fn await_answer(client: &Client, address: &str) -> Result<()> {
    let (begin, longest) = (Instant::now(), Duration::from_secs(1));
    let mut pauses = pauses(longest).build();
    loop {
        let (retry_for, reason) = match timeout_at(begin + RETRY_FOR, ping(client)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if refuses(&error) => return Err(refused(client, address, &error)),
            Ok(Err(error)) if let Some(why) = distrust(&error) => {
                return Err(JobsError::invalid(format!(
                    "Redis at {address} is not trusted: {why}"
                )));
            }
            Ok(Err(error)) if let Some(error) = for_good(address, &error) => return Err(error),
            Ok(Err(error)) if error.is_connection_refusal() => {
                (RETRY_REFUSED_FOR, Message::of(error))
            }
            Ok(Err(error)) => (RETRY_FOR, Message::of(error)),
            Err(_) => (RETRY_FOR, silence(client).into()),
        };
        let pause = pauses.next().unwrap_or(longest);
        if begin.elapsed() + pause >= retry_for {
            return Err(no_answer(address, reason));
        }
        sleep(pause).await;
    }
}

/// The error of an answer that no retry changes.
fn for_good(address: &str, error: &RedisError) -> Option<JobsError> {
    let error = explain(refusal(error)?, address, met(error));
    (!error.may_pass()).then_some(error)
}

async fn ping(client: &Client) -> RedisResult<()> {
    let mut connection = open(client, CONNECT).await?;
    redis::cmd("PING").query_async::<String>(&mut connection).await.map(drop)
}

/// A separate connection, for a thread that must not wait for others. It does not reconnect. Opening it and each answer
/// may take this long.
pub(crate) async fn open(client: &Client, answer: Duration) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(answer))
        .set_response_timeout(Some(answer));
    client.get_multiplexed_async_connection_with_config(&config).await
}

fn refused(client: &Client, address: &str, error: &RedisError) -> JobsError {
    let settings = client.get_connection_info().redis_settings();
    let user = match (settings.username(), settings.password()) {
        (None, _) => "the user \"default\"".to_owned(),
        (Some(user), Some(_)) => format!("the user {user:?}"),
        // It may be a password where a user belongs.
        (Some(_), None) => "a user without a password".to_owned(),
    };
    let text = format!(
        "Redis at {address} refuses {user} ({error}): name the user in AGRPO_REDIS, as in \
         redis://user@host:port, and the password in AGRPO_REDIS_PASSWORD or in the file that \
         AGRPO_REDIS_PASSWORD_FILE names"
    );
    JobsError::Invalid(Message::caused_by(text, error.clone()))
}

fn no_answer(address: &str, reason: Message) -> JobsError {
    JobsError::Unavailable(reason.reworded(|reason| {
        format!(
            "Redis at {address} does not answer ({reason}): start one with `make up`, or set AGRPO_REDIS"
        )
    }))
}

/// Describes a server that accepts and does not answer. One without TLS does so: it waits for the end of what it takes
/// for a command.
fn silence(client: &Client) -> String {
    let is_tls = matches!(client.get_connection_info().addr(), ConnectionAddr::TcpTls { .. });
    let also = if is_tls { "; a port without TLS does not answer rediss://" } else { "" };
    format!("silent for {} s{also}", RETRY_FOR.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::RedisServer;

    fn message(result: Result<Fleet>) -> (JobsError, String) {
        let error = result.unwrap_err();
        let text = error.to_string();
        assert!(!text.contains('\n') && !text.contains("s3cret"), "{text}");
        (error, text)
    }

    #[tokio::test]
    async fn a_dead_port_is_named_with_the_way_out() {
        let port = RedisServer::start(&[]).url();
        let (error, text) = message(Fleet::connect(&port).await);
        assert!(matches!(error, JobsError::Unavailable(_)));
        assert!(!text.contains("silent"), "refused, and not waited for: {text}");
        for part in [port.trim_start_matches("redis://"), "make up", "AGRPO_REDIS"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[tokio::test]
    async fn a_host_that_accepts_and_stays_silent_is_given_up() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let (error, text) = message(Fleet::connect(&url).await);
        assert!(matches!(error, JobsError::Unavailable(_)));
        assert!(text.contains("does not answer"), "{text}");
    }

    #[tokio::test]
    async fn wrong_and_missing_passwords_are_refused_at_once() {
        let server = RedisServer::start(&["--requirepass", "right"]);
        let host = server.url().replace("redis://", "");
        for (url, user) in [
            (format!("redis://s3cret@{host}"), "a user without a password"),
            (format!("redis://:s3cret@{host}"), "default"),
            (format!("redis://anna:s3cret@{host}"), "anna"),
            (format!("redis://{host}"), "default"),
        ] {
            let (error, text) = message(Fleet::connect(&url).await);
            assert!(matches!(error, JobsError::Invalid(_)), "{text}");
            assert!(text.contains(&host) && text.contains(user), "{text}");
            assert!(!text.contains("s3cret"), "{text}");
        }
        let fleet = Fleet::connect(&format!("redis://:right@{host}")).await.unwrap();
        assert_eq!((fleet.address(), format!("{fleet:?}")), (&*host, format!("Fleet({host})")));
    }

    #[tokio::test]
    async fn a_url_that_is_none_is_invalid() {
        for url in ["", "localhost:6379", "http://u:s3cret@h", "redis://u:s3cret@h:99999"] {
            let (error, text) = message(Fleet::connect(url).await);
            assert!(matches!(error, JobsError::Invalid(_)), "{text}");
            assert!(text.contains("redis://[[user]:password@]host"), "{text}");
        }
    }
}
