//! What opens the way to a Redis: its address, a password from elsewhere, an authority to trust.
//!
//! Never shown: `Debug` names the address' host at most. Nothing here reads a file or the environment.

use std::time::Duration;

use redis::{
    Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisError, RedisResult, TlsCertificates,
};

/// An address and what belongs to it. A plain address makes one by `into`.
#[derive(Clone, Default)]
pub struct Access {
    url: String,
    password: Option<String>,
    authority: Option<Vec<u8>>,
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

impl From<&Self> for Access {
    fn from(access: &Self) -> Self {
        access.clone()
    }
}

impl Access {
    /// Uses this password instead of the address' own.
    #[must_use]
    pub fn with_password(self, password: Option<String>) -> Self {
        Self { password, ..self }
    }

    /// Trusts the certificates of these authorities (PEM) and no other; `None` trusts the system's.
    #[must_use]
    pub fn with_authority(self, authority: Option<Vec<u8>>) -> Self {
        Self { authority, ..self }
    }

    pub(super) fn client(&self) -> RedisResult<Client> {
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

/// What to say of a server that accepts and does not answer: one without TLS waits for the end of what
/// it takes for a command.
pub(super) fn silence(client: &Client, patience: Duration) -> String {
    let is_tls = matches!(client.get_connection_info().addr(), ConnectionAddr::TcpTls { .. });
    let also = if is_tls { ", as a port without TLS is to rediss://" } else { "" };
    format!("silent for {} s{also}", patience.as_secs())
}

/// What TLS has against the server, in words; `None` where the error is about something else. Trying
/// again is no use.
pub(super) fn distrust(error: &RedisError) -> Option<String> {
    if error.kind() != ErrorKind::Io {
        return None;
    }
    let text = error.to_string();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let why = if says(&["UnknownIssuer", "BadSignature"]) {
        "its certificate is signed by an authority that is not trusted here: name the authority's file in \
         AGRPO_REDIS_CA"
    } else if says(&["NotValidForName", "not valid for name"]) {
        "its certificate is for another host: use a name that it was made for"
    } else if says(&["Expired", "NotValidYet", "expired", "not valid yet"]) {
        "its certificate is not valid at this time: renew it, or set this machine's clock"
    } else if says(&["invalid peer certificate"]) {
        return Some(format!("its certificate cannot be used ({text})"));
    } else {
        return None;
    };
    Some(why.to_owned())
}
