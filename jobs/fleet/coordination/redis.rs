//! The connection to Redis: patient with stalls, and silent about passwords.
//!
//! redis-rs gives up on an answer after half a second, which would end a worker at every hiccup; here an answer may take
//! ten. Messages name host and port, never credentials. Knows what errors mean, and logs what scripts say of values that
//! agrpo did not write; what is kept in Redis is the business of the other files.

mod access;

pub(crate) mod refusal;
pub(crate) mod rights;
pub(crate) mod settings;
pub(crate) mod types;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, Pipeline, RedisError, RedisResult, Script,
    ScriptInvocation,
};
use tokio::time::{Instant, sleep, timeout_at};

pub use self::access::Access;
use self::refusal::{Refusal, plain, refuses};
use crate::coordination::keys::Keys;
use agrpo_store::JobsError;

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
    pub async fn connect(access: impl Into<Access>) -> Result<Self, JobsError> {
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

    /// The user as which it is spoken to.
    fn user(&self) -> &str {
        let settings = self.client.get_connection_info().redis_settings();
        settings.username().unwrap_or("default")
    }

    /// A handle to the shared connection.
    pub(crate) fn connection(&self) -> ConnectionManager {
        self.connection.clone()
    }

    /// A connection of its own, for a thread that must not wait for others; it does not come back by
    /// itself.
    pub(crate) async fn own_connection(
        &self,
        answer: Duration,
    ) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(answer))
            .set_response_timeout(Some(answer));
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// One command.
    pub(crate) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, JobsError> {
        match command.query_async(&mut self.connection()).await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.failed(&error).await),
        }
    }

    /// Several commands at once.
    pub(crate) async fn ask_all<T: FromRedisValue>(
        &self,
        commands: &Pipeline,
    ) -> Result<T, JobsError> {
        match commands.query_async(&mut self.connection()).await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.failed(&error).await),
        }
    }

    /// A script of ours.
    pub(crate) async fn invoke<T: FromRedisValue>(
        &self,
        call: &ScriptInvocation<'_>,
    ) -> Result<T, JobsError> {
        match call.invoke_async::<(T, Vec<String>)>(&mut self.connection()).await {
            Ok((answer, notes)) => {
                self.heed(notes);
                Ok(answer)
            }
            Err(error) => Err(self.failed(&error).await),
        }
    }

    /// Says which values scripts have set right, each once.
    pub(crate) fn heed(&self, notes: Vec<String>) {
        for note in notes {
            let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
            if noted.len() < MOST_NOTES && noted.insert(note.clone()) {
                tracing::warn!(redis = self.place, "{note}");
            }
        }
    }

    /// What a failed command means to the caller.
    pub(crate) async fn failed(&self, error: &RedisError) -> JobsError {
        self.meaning(&plain(error)).await
    }

    /// The same for an error that only its words are left of. Of a wrong type the key is looked for, and of a
    /// missing right what it is, since Redis does not name them.
    pub(crate) async fn meaning(&self, text: &str) -> JobsError {
        let named = match refusal::refusal(text) {
            Some(Refusal::WrongType) => {
                let message = types::wrong(&self.keys, &self.place, &mut self.connection())
                    .await
                    .ok()
                    .flatten();
                message.map(|message| JobsError::Misconfigured { message, may_pass: false })
            }
            Some(Refusal::Rights) => {
                rights::lacking(&mut self.connection(), self.user(), &self.place, text).await
            }
            _ => None,
        };
        named.or_else(|| refusal::explained(&self.place, text)).unwrap_or_else(|| {
            JobsError::Unavailable(format!(
                "Redis at {} was lost ({text}): finished stages are safe in the store; start the worker \
                 again once Redis answers",
                self.place
            ))
        })
    }
}

/// Tries until a server answers or refuses us, or the time is over.
async fn await_answer(client: &Client, place: &str) -> Result<(), JobsError> {
    let begin = Instant::now();
    let mut pause = Duration::from_millis(100);
    loop {
        let (patience, reason) = match timeout_at(begin + PATIENCE, ping(client)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if refuses(&error) => return Err(refused(client, place, &error)),
            Ok(Err(error)) if let Some(why) = access::distrust(&error) => {
                return Err(JobsError::Invalid(format!("Redis at {place} is not trusted: {why}")));
            }
            Ok(Err(error)) if let Some(error) = for_good(place, &error) => return Err(error),
            Ok(Err(error)) if error.is_connection_refusal() => {
                (PATIENCE_REFUSED, error.to_string())
            }
            Ok(Err(error)) => (PATIENCE, error.to_string()),
            Err(_) => (PATIENCE, access::silence(client, PATIENCE)),
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
    refusal::explained(place, &plain(error)).filter(|error| !error.may_pass())
}

async fn ping(client: &Client) -> RedisResult<()> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(CONNECT));
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    redis::cmd("PING").query_async::<String>(&mut connection).await?;
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis_server::RedisServer;

    fn message(result: Result<Fleet, JobsError>) -> (JobsError, String) {
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
        let begin = Instant::now();
        let (error, text) = message(Fleet::connect(&port).await);
        assert!(matches!(error, JobsError::Unavailable(_)));
        assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
        for part in [port.trim_start_matches("redis://"), "make up", "AGRPO_REDIS"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[tokio::test]
    async fn a_host_that_accepts_and_stays_silent_is_given_up() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let begin = Instant::now();
        let (error, _) = message(Fleet::connect(&url).await);
        assert!(matches!(error, JobsError::Unavailable(_)));
        assert!(begin.elapsed() < PATIENCE + Duration::from_secs(2), "{:?}", begin.elapsed());
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
            let begin = Instant::now();
            let (error, text) = message(Fleet::connect(&url).await);
            assert!(
                matches!(error, JobsError::Invalid(_) | JobsError::Misconfigured { .. }),
                "{text}"
            );
            assert!(text.contains(&host) && text.contains(user), "{text}");
            assert!(!text.contains("s3cret"), "{text}");
            assert!(begin.elapsed() < Duration::from_secs(2));
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
