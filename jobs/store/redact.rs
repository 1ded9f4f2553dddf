//! Addresses as they may be shown: without users, passwords and signed parameters.
//!
//! The one place that decides it, for errors, records, log lines and what other libraries say. Knows texts alone: it
//! cannot tell a password that stands by itself from a word. In doubt it shows less.

use std::borrow::Cow;

/// What the name of a parameter contains whose value is a secret.
const SECRET: [&str; 8] =
    ["pass", "secret", "token", "signature", "credential", "accesskey", "apikey", "authorization"];
/// Names that are one.
const SECRET_NAMES: [&str; 3] = ["sig", "key", "auth"];
/// Schemes of Redis: their passwords are often written as they are, with any character.
const REDIS: [&str; 4] = ["redis", "rediss", "valkey", "valkeys"];
/// What stands for a user in our own messages.
const EXAMPLES: [&str; 2] = ["user", "[[user]:password"];
/// What ends an address within a text.
const QUOTES: &[char] = &['"', '\'', '`', '<', '>'];
/// What belongs to the sentence around it.
const TAIL: &[char] = &[')', ']', '}', ',', '.', ';', ':', '\\'];

/// Whether an address in this text carries a password or a key. The user of a Redis is none.
pub fn holds_secret(text: &str) -> bool {
    let Some((before, rest)) = text.split_once("://").or_else(|| slip(text)) else { return false };
    let user = user(before, rest);
    let is_redis = is_redis(before);
    let is_user_secret = user.is_some_and(|user| match user.split_once(':') {
        Some((_, password)) => !password.is_empty(),
        None => !is_redis && !user.is_empty(),
    });
    is_user_secret || parameters(rest).is_some_and(has_secret)
}

/// The parts of an address that lacks a slash, as in `s3:/bucket`, by the names that only addresses have.
fn slip(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let kind = scheme.to_ascii_lowercase();
    let is_kind =
        ["s3", "s3a", "s3n", "http", "https"].iter().chain(&REDIS).any(|one| kind.ends_with(one));
    is_kind.then(|| (scheme, rest.trim_start_matches('/')))
}

/// An address as it may be shown: without its user and password, and without parameters where one is a secret.
pub fn address(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let (user, secret) = (user(scheme, rest), parameters(rest).is_some_and(has_secret));
    if user.is_none() && !secret {
        return address.to_owned();
    }
    let place = user.map_or(rest, |user| &rest[user.len() + 1..]);
    let place = place.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{place}")
}

/// A text in which no address shows more than it may.
pub fn text(text: &str) -> Cow<'_, str> {
    // Before addresses are recognised: a secret may look like the beginning of one.
    let shown = hide_parameters(text).map_or(Cow::Borrowed(text), Cow::Owned);
    if shown.contains("://") { Cow::Owned(addresses(&shown)) } else { shown }
}

fn is_redis(scheme: &str) -> bool {
    REDIS.iter().any(|kind| scheme.ends_with(kind))
}

/// User and password of what stands behind `://`, if any.
fn user<'a>(scheme: &str, rest: &'a str) -> Option<&'a str> {
    let is_real = |user: &&str| !EXAMPLES.contains(user);
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if let Some((user, _)) = host.rsplit_once('@').filter(|_| !is_redis(scheme)) {
        return Some(user).filter(is_real);
    }
    // A password may hold an unescaped slash or question mark: what follows the first colon is no port then.
    let is_no_port = host.split_once(':').is_some_and(|(_, port)| {
        !host.starts_with('[') && (port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()))
    });
    let (user, _) = rest.rsplit_once('@').filter(|_| is_no_port || is_redis(scheme))?;
    (!scheme.ends_with("file")).then_some(user).filter(is_real)
}

/// What stands behind the place of an address.
fn parameters(rest: &str) -> Option<&str> {
    rest.find(['?', '#']).map(|at| &rest[at..])
}

fn has_secret(parameters: &str) -> bool {
    parameters
        .split(['?', '&', '#', ';'])
        .any(|parameter| parameter.split_once('=').is_some_and(|(name, _)| is_secret_name(name)))
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['-', '_'], "");
    SECRET.iter().any(|secret| name.contains(secret)) || SECRET_NAMES.contains(&&*name)
}

fn addresses(text: &str) -> String {
    let is_of_scheme = |c: char| c.is_ascii_alphanumeric() || "+.-".contains(c);
    let begin_of = |text: &str, colon: usize| text[..colon].trim_end_matches(is_of_scheme).len();
    let (mut shown, mut rest) = (String::new(), text);
    while let Some(colon) = rest.find("://") {
        let begin = begin_of(rest, colon);
        let body = &rest[colon + 3..];
        let mut end =
            body.find(|c: char| c.is_whitespace() || QUOTES.contains(&c)).unwrap_or(body.len());
        if let Some(next) = body[..end].find("://") {
            end = begin_of(body, next);
        }
        let end = colon + 3 + body[..end].trim_end_matches(TAIL).len();
        shown.push_str(&rest[..begin]);
        shown.push_str(&address(&rest[begin..end]));
        rest = &rest[end..];
    }
    shown + rest
}

/// Hides the values of secret parameters, wherever they stand; `None` where there are none.
fn hide_parameters(text: &str) -> Option<String> {
    let (mut shown, mut rest, mut is_hidden) = (String::new(), text, false);
    while let Some(mark) = rest.find(['?', '&']) {
        let (before, after) = rest.split_at(mark + 1);
        shown.push_str(before);
        rest = after;
        let name = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
        let Some(equals) = name.filter(|&at| rest[at..].starts_with('=')) else { continue };
        if !is_secret_name(&rest[..equals]) {
            continue;
        }
        let value = &rest[equals + 1..];
        let end =
            value.find(|c: char| c.is_whitespace() || QUOTES.contains(&c) || "&#\\".contains(c));
        shown.push_str(&rest[..=equals]);
        shown.push_str("***");
        is_hidden = true;
        rest = &value[end.unwrap_or(value.len())..];
    }
    is_hidden.then(|| shown + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_found_and_a_host_is_none() {
        for text in [
            "redis://:s3cret@host",
            "--redis=rediss://user:s3cret@host:6379/0",
            "redis://user:s3/cr#et@host",
            "redis://:a?b@host",
            "s3://key:s3cret@bucket/prefix",
            "s3://KEY@bucket/prefix",
            "task.train=https://u:s3cret@host/rows",
            "https://ghp_s3cret@host/rows",
            "http://KEY:s3/cr+et@minio:9000",
            "http://KEY:s3?cret@minio:9000",
            "https://host/rows?X-Amz-Signature=ab",
            "https://host/rows?v=1&sig=ab",
            "https://host/rows#access_token=ab",
            "s3://bucket?aws_secret_access_key=s3cret",
            "redis+unix:///run/redis.sock?pass=s3cret",
            "s3:/u:s3cret@bucket",
            "s3:u:s3cret@bucket",
            "S3://u:s3cret@bucket",
            "--store=s3:/s3cret@bucket",
            "redis:/:s3cret@host",
        ] {
            assert!(holds_secret(text), "{text}");
        }
        for text in [
            "redis://host:6379",
            "rediss://user@host:6379/1",
            "s3://bucket/prefix",
            "https://host:8080/a@b",
            "https://[::1]:8080/a@b",
            "https://huggingface.co/datasets/x@main/rows.jsonl?download=true",
            "file:///data/a:b@c",
            "run.toml",
            "user:word@host",
            "s3:/bucket",
            "task.train=s3:bucket",
        ] {
            assert!(!holds_secret(text), "{text}");
        }
    }

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        for (given, expected) in [
            ("https://me:s3cret@host/rows?v=1", "https://host/rows"),
            ("https://host/rows?X-Amz-Signature=ab", "https://host/rows"),
            ("https://host/rows?v=1", "https://host/rows?v=1"),
            ("https://s3cret@host:8080/x", "https://host:8080/x"),
            ("redis://s3cret@host:6379/1", "redis://host:6379/1"),
            ("redis://:s3/c?r#et@host:6379/1", "redis://host:6379/1"),
            ("rediss://anna:s3cret@host", "rediss://host"),
            ("http://KEY:s3/cr+et@minio:9000", "http://minio:9000"),
            ("http://KEY:s3?c#ret@minio:9000/x", "http://minio:9000/x"),
            ("http://KEY:p@s3cret@minio:9000/x", "http://minio:9000/x"),
            ("s3://bucket/prefix", "s3://bucket/prefix"),
            ("file:///data/a:b@c", "file:///data/a:b@c"),
            ("https://host:8080/a@b", "https://host:8080/a@b"),
            ("no address", "no address"),
        ] {
            assert_eq!(address(given), expected);
        }
    }

    #[test]
    fn a_text_of_another_library_shows_no_more() {
        for (given, expected) in [
            ("nothing to hide: 50 % & more", "nothing to hide: 50 % & more"),
            (
                "error sending request for url (http://KEY:s3cret@minio:9000/b?list-type=2): refused",
                "error sending request for url (http://minio:9000/b): refused",
            ),
            (
                r#"{"message":"proxy \"http://u:s3cret@proxy:3128\" failed","n":1}"#,
                r#"{"message":"proxy \"http://proxy:3128\" failed","n":1}"#,
            ),
            (
                "Redis at redis://s3cret@h:1, then rediss://u:s3)c,ret@h:2.",
                "Redis at redis://h:1, then rediss://h:2.",
            ),
            ("a=http://u:s3cret@h/x,https://s3cret@i/y;b", "a=http://h/x,https://i/y;b"),
            (
                "GET /rows?a=1&X-Amz-Credential=s3cret&X-Amz-Signature=s3cret HTTP/1.1",
                "GET /rows?a=1&X-Amz-Credential=***&X-Amz-Signature=*** HTTP/1.1",
            ),
            ("GET /?token=s3cret", "GET /?token=***"),
            (
                "303 Location: https://h/x?X-Amz-Security-Token=s3cret#f, again",
                "303 Location: https://h/x, again",
            ),
            ("`redis://:s3cret@h` is not a URL", "`redis://h` is not a URL"),
            ("über://ä:s3cret@h ß", "über://h ß"),
            (
                "expected redis://[[user]:password@]host[:port], as in redis://user@host",
                "expected redis://[[user]:password@]host[:port], as in redis://user@host",
            ),
            ("://", "://"),
            ("s3://bucket/x: cannot write cas/ab?", "s3://bucket/x: cannot write cas/ab?"),
        ] {
            assert_eq!(text(given), expected);
            assert!(!text(given).contains("s3cret"));
            assert_eq!(text(&text(given)), text(given), "once is enough");
        }
    }

    /// Whatever stands around an address, and however it is joined to it.
    #[test]
    fn no_neighbour_brings_a_secret_out() {
        let parts = [
            "://", "@", ":", "/", "?", "=", "token", "é", " ", "\"", "s3", "[", "\\", "&sig=", "80",
        ];
        let mut around = vec![String::new()];
        around.extend(parts.map(str::to_owned));
        around.extend(parts.iter().flat_map(|one| parts.map(|two| format!("{one}{two}"))));
        for secret in [
            "redis://u:s3cret@h",
            "redis://s3cret@h",
            "redis://:a@s3cret@h",
            "http://u:s3cret@h:9000/x",
            "http://K:a/s3cret@h:1",
            "http://K:a?s3cret@h:1",
            "https://s3cret@h/x",
            "https://h/x?X-Amz-Signature=s3cret&v=1",
            "/x?token=s3cret",
        ] {
            for (before, after) in
                around.iter().flat_map(|one| around.iter().map(move |two| (one, two)))
            {
                let text = text(&format!("{before}{secret}{after}")).into_owned();
                assert!(!text.contains("s3cret"), "{before}{secret}{after} -> {text}");
            }
        }
    }
}
