//! The connection to Redis: patient with stalls, and silent about passwords.
//!
//! redis-rs gives up on an answer after half a second, which would end a worker at every hiccup; here an answer may take
//! ten. Messages name host and port, never credentials. Knows what errors mean, and logs what scripts say of values that
//! agrpo did not write; what is kept in Redis is the business of the other files.

pub(crate) mod diagnosis;
pub(crate) mod refusal;

use std::sync::{Arc, Mutex, PoisonError};
use std::{collections::BTreeSet, time::Duration};

use agrpo_store::JobsError;
use redis::aio::{
    ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection,
};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, FromRedisValue, IntoConnectionInfo,
    Pipeline, RedisError, RedisResult, Script, ScriptInvocation, TlsCertificates,
};
use tokio::time::{Instant, sleep, timeout_at};

use self::refusal::{Meaning, Refusal, distrust, explain, plain, refusal, refuses};
use crate::{Result, coordination::keys::Keys};

/// How long one answer may take.
const RESPONSE: Duration = Duration::from_secs(10);
/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long `connect` tries in all.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it tries where the connection is refused: long enough for a Redis that was just started.
const PATIENCE_REFUSED: Duration = Duration::from_secs(3);

/// Values that were set right are named this many times at most.
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
    client: Client,
    connection: ConnectionManager,
    place: String,
    pub(crate) keys: Keys,
    /// What was said of values that no agrpo wrote.
    noted: Arc<Mutex<BTreeSet<String>>>,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fleet({})", self.place)
    }
}

impl Fleet {
    /// Connects to `redis://[[user]:password@]host[:port][/database]`, or `rediss://` for TLS.
    ///
    /// Unavailable where no server answers within ten seconds, Invalid for a URL that is none, for refused
    /// credentials and for a server that TLS does not trust. No error holds the password.
    pub async fn connect(access: impl Into<Access>) -> Result<Self> {
        let client = access.into().client().map_err(|error| {
            JobsError::Invalid(format!(
                "the Redis URL cannot be used ({error}): expected \
                 redis://[[user]:password@]host[:port][/database], or rediss:// for TLS; set AGRPO_REDIS"
            ))
        })?;
        let place = client.get_connection_info().addr().to_string();
        await_answer(&client, &place).await?;
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(RESPONSE))
            .set_connection_timeout(Some(CONNECT))
            .set_number_of_retries(4)
            .set_max_delay(Duration::from_secs(1));
        let connection = client
            .get_connection_manager_with_config(config)
            .await
            .map_err(|error| no_answer(&place, &error.to_string()))?;
        let (keys, noted) = (Keys::default(), Arc::default());
        Ok(Self { client, connection, place, keys, noted })
    }

    /// The same Redis under names that nothing else has, for a trial.
    pub(crate) fn on_trial(&self, unique: &str) -> Self {
        Self { keys: Keys::of_trial(unique), ..self.clone() }
    }

    /// Host and port, for people.
    pub fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn connection(&self) -> ConnectionManager {
        self.connection.clone()
    }

    /// A connection of its own, for a thread that must not wait for others; it does not come back by
    /// itself.
    pub(crate) async fn own_connection(
        &self,
        answer: Duration,
    ) -> RedisResult<MultiplexedConnection> {
        open(&self.client, answer).await
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

    /// A script of ours on any connection. Logs which values it has set right, each once.
    pub(crate) async fn invoke_on<T: FromRedisValue>(
        &self,
        connection: &mut impl ConnectionLike,
        call: &ScriptInvocation<'_>,
    ) -> RedisResult<T> {
        let (answer, notes) = call.invoke_async::<(T, Vec<String>)>(connection).await?;
        for note in notes {
            let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
            if noted.len() < MOST_NOTES && noted.insert(note.clone()) {
                tracing::warn!(redis = self.place, "{note}");
            }
        }
        Ok(answer)
    }

    /// An answer, or what its error means to the caller.
    pub(crate) async fn explained<T>(&self, answer: RedisResult<T>) -> Result<T> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.failed(&error).await),
        }
    }

    /// What a failed command means to the caller.
    pub(crate) async fn failed(&self, error: &RedisError) -> JobsError {
        self.meaning(refusal(error), &plain(error)).await
    }

    /// What a refusal in these words means. Of a wrong type the key is looked for, and of a missing right what it
    /// is, since Redis does not name them.
    pub(crate) async fn meaning(&self, refusal: Option<Meaning>, text: &str) -> JobsError {
        let place = &self.place;
        let named = match refusal {
            Some((Refusal::WrongType, _)) => {
                diagnosis::wrong_types(&self.keys, place, &mut self.connection())
                    .await
                    .ok()
                    .flatten()
            }
            Some((Refusal::Rights, _)) => {
                let user = self.client.get_connection_info().redis_settings().username();
                let user = user.unwrap_or("default");
                diagnosis::lacking(&mut self.connection(), user, place, text).await
            }
            _ => None,
        };
        named.or_else(|| refusal.map(|refusal| explain(refusal, place, text))).unwrap_or_else(|| {
            JobsError::Unavailable(format!(
                "Redis at {place} was lost ({text}): finished stages are safe in the store; start the worker \
                 again once Redis answers"
            ))
        })
    }
}

/// Tries until a server answers or refuses us, or the time is over.
async fn await_answer(client: &Client, place: &str) -> Result<()> {
    let begin = Instant::now();
    let mut pause = Duration::from_millis(100);
    loop {
        let (patience, reason) = match timeout_at(begin + PATIENCE, ping(client)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if refuses(&error) => return Err(refused(client, place, &error)),
            Ok(Err(error)) if let Some(why) = distrust(&error) => {
                return Err(JobsError::Invalid(format!("Redis at {place} is not trusted: {why}")));
            }
            Ok(Err(error)) if let Some(error) = for_good(place, &error) => return Err(error),
            Ok(Err(error)) if error.is_connection_refusal() => {
                (PATIENCE_REFUSED, error.to_string())
            }
            Ok(Err(error)) => (PATIENCE, error.to_string()),
            Err(_) => (PATIENCE, silence(client, PATIENCE)),
        };
        if begin.elapsed() + pause >= patience {
            return Err(no_answer(place, &reason));
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// An answer that no other try changes.
fn for_good(place: &str, error: &RedisError) -> Option<JobsError> {
    let error = explain(refusal(error)?, place, &plain(error));
    (!error.may_pass()).then_some(error)
}

async fn ping(client: &Client) -> RedisResult<()> {
    let mut connection = open(client, CONNECT).await?;
    redis::cmd("PING").query_async::<String>(&mut connection).await.map(drop)
}

/// A connection whose opening and answers may take so long.
async fn open(client: &Client, answer: Duration) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(answer))
        .set_response_timeout(Some(answer));
    client.get_multiplexed_async_connection_with_config(&config).await
}

fn refused(client: &Client, place: &str, error: &RedisError) -> JobsError {
    let settings = client.get_connection_info().redis_settings();
    let user = match (settings.username(), settings.password()) {
        (None, _) => "the user \"default\"".to_owned(),
        (Some(user), Some(_)) => format!("the user {user:?}"),
        // It may be a password where a user belongs.
        (Some(_), None) => "a user without a password".to_owned(),
    };
    JobsError::Invalid(format!(
        "Redis at {place} refuses {user} ({error}): name the user in AGRPO_REDIS, as in \
         redis://user@host:port, and the password in AGRPO_REDIS_PASSWORD or in the file that \
         AGRPO_REDIS_PASSWORD_FILE names"
    ))
}

fn no_answer(place: &str, reason: &str) -> JobsError {
    JobsError::Unavailable(format!(
        "Redis at {place} does not answer ({reason}): start one with `make up`, or set AGRPO_REDIS"
    ))
}

/// What to say of a server that accepts and does not answer: one without TLS waits for the end of what
/// it takes for a command.
fn silence(client: &Client, patience: Duration) -> String {
    let is_tls = matches!(client.get_connection_info().addr(), ConnectionAddr::TcpTls { .. });
    let also = if is_tls { ", as a port without TLS is to rediss://" } else { "" };
    format!("silent for {} s{also}", patience.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis_server::RedisServer;

    fn message(result: Result<Fleet>) -> (JobsError, String) {
        let error = result.unwrap_err();
        let text = error.to_string();
        assert!(!text.contains('\n') && !text.contains("s3cret"), "{text}");
        (error, text)
    }

    #[tokio::test]
    async fn a_dead_port_is_named_with_the_way_out() {
        let port = {
            let server = RedisServer::start(&[]);
            server.url()
        };
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
            assert!(
                matches!(error, JobsError::Invalid(_) | JobsError::Misconfigured { .. }),
                "{text}"
            );
            assert!(text.contains(&host) && text.contains(user), "{text}");
            assert!(!text.contains("s3cret"), "{text}");
        }
        let fleet = Fleet::connect(&format!("redis://:right@{host}")).await.unwrap();
        assert_eq!((fleet.place(), format!("{fleet:?}")), (&*host, format!("Fleet({host})")));
    }

    #[tokio::test]
    async fn a_url_that_is_none_is_invalid() {
        for url in ["", "localhost:6379", "http://u:s3cret@h", "redis://u:s3cret@h:99999"] {
            let (error, text) = message(Fleet::connect(url).await);
            assert!(
                matches!(error, JobsError::Invalid(_) | JobsError::Misconfigured { .. }),
                "{text}"
            );
            assert!(text.contains("redis://[[user]:password@]host"), "{text}");
        }
    }
}
