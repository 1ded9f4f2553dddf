//! The address of a store: a folder, a bucket, or memory.
//!
//! Strict, since a missing folder is created: a text that looks like an unknown address is refused with a suggestion,
//! and never taken for a folder. Opens nothing.

use std::path::PathBuf;

use crate::{JobsError, Result};

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// In the memory of this process.
    Memory,
    /// A folder of this machine.
    Folder(PathBuf),
    /// A place in a bucket.
    Bucket {
        /// The bucket's name.
        bucket: String,
        /// What the names of all objects begin with; may be empty.
        prefix: String,
    },
}

impl Address {
    /// Reads `file:///folder`, a plain folder, `s3://bucket[/prefix]` or `memory://`. Invalid for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = |why: &str| {
            let why = if why.is_empty() { String::new() } else { format!("{why}; ") };
            Err(JobsError::invalid(format!(
                "`{text}` is not a store: {why}expected file:///folder, a plain folder, s3://bucket/prefix or \
                 memory://"
            )))
        };
        if text.is_empty() || text.trim() != text {
            return refuse("there are spaces around it, or nothing at all");
        }
        let Some((scheme, rest)) = scheme(text) else { return Ok(Self::Folder(text.into())) };
        match (scheme, rest.strip_prefix("//")) {
            ("memory", Some("")) => Ok(Self::Memory),
            ("file", Some(folder)) if folder.starts_with('/') => match escape(folder) {
                Some(escape) => refuse(&format!(
                    "{escape} is not read as an escape: write the folder as it is, as a plain path"
                )),
                None => Ok(Self::Folder(folder.into())),
            },
            ("s3", Some(rest)) => bucket(rest).or_else(|why| refuse(&why)),
            _ => refuse(&meant(scheme, rest)),
        }
    }

    /// The folder, where it is one.
    pub fn folder(self) -> Option<PathBuf> {
        match self {
            Self::Folder(folder) => Some(folder),
            _ => None,
        }
    }
}

/// Splits what looks like a scheme from the rest. A path with a colon begins with a dot or a slash.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let is_letter = |c: char| c.is_ascii_alphanumeric() || "+.-".contains(c);
    let begins = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    (begins && scheme.chars().all(is_letter)).then_some((scheme, rest))
}

/// Suggests the address that was probably meant by one that cannot be used.
fn meant(scheme: &str, rest: &str) -> String {
    let place = rest.trim_start_matches('/');
    match scheme.to_ascii_lowercase().as_str() {
        "s3" if place.is_empty() => "it names no bucket".to_owned(),
        "s3" | "s3a" | "s3n" => format!("did you mean s3://{place}?"),
        "file" if rest.starts_with("//") && !rest.starts_with("///") => {
            format!("did you mean file:///{place}, or the plain folder {place}?")
        }
        "file" if rest.starts_with('/') => format!("did you mean file:///{place}?"),
        "file" => {
            let here = if rest.starts_with('.') { "" } else { "./" };
            format!("a relative folder is a plain path: did you mean {here}{rest}?")
        }
        "memory" => "did you mean memory://?".to_owned(),
        "http" | "https" => {
            "the address of an S3 server belongs into AWS_ENDPOINT, and the store is s3://bucket/prefix there"
                .to_owned()
        }
        // Other programs' stores: there is nothing to suggest.
        "gs" | "gcs" | "az" | "azure" | "abfs" | "abfss" | "wasb" | "wasbs" | "hf" | "ftp"
        | "sftp" => String::new(),
        _ => format!(
            "{scheme}: looks like an address; a folder with a colon in its name is written ./{scheme}:{rest}"
        ),
    }
}

/// The bucket and the prefix behind `s3://`, or why they cannot be used.
fn bucket(rest: &str) -> Result<Address, String> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err("it names no bucket".to_owned());
    }
    if bucket.contains('@') {
        return Err("it holds a user, and maybe a key: keys belong into AWS_ACCESS_KEY_ID and \
                    AWS_SECRET_ACCESS_KEY"
            .to_owned());
    }
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if let Some(wrong) = rest.chars().find(|c| "?#%\\".contains(*c) || c.is_control()) {
        return Err(format!("{wrong:?} can be part of no bucket and no prefix"));
    }
    if let Some(wrong) = bucket.chars().find(|c| !is_of_name(*c)) {
        return Err(format!("{wrong:?} can be part of no bucket's name"));
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let is_part = |part: &str| !["", ".", ".."].contains(&part);
    if !prefix.is_empty() && !prefix.split('/').all(is_part) {
        let parts: Vec<_> = prefix.split('/').filter(|part| is_part(part)).collect();
        return Err(format!("did you mean s3://{bucket}/{}?", parts.join("/")));
    }
    Ok(Address::Bucket { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

/// The first percent escape in a path.
fn escape(path: &str) -> Option<&str> {
    let is_hex = |at: usize| path.as_bytes().get(at).is_some_and(u8::is_ascii_hexdigit);
    path.match_indices('%')
        .find(|(at, _)| is_hex(at + 1) && is_hex(at + 2))
        .map(|(at, _)| &path[at..at + 3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_buckets_are_distinguished() {
        let folder = |path: &str| Address::Folder(path.into());
        let in_bucket = |bucket: &str, prefix: &str| Address::Bucket {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        };
        for (text, expected) in [
            (".agrpo", folder(".agrpo")),
            ("runs/a b", folder("runs/a b")),
            ("/data/a:b", folder("/data/a:b")),
            ("./a:b", folder("./a:b")),
            ("../s3:/x", folder("../s3:/x")),
            ("a/b:c", folder("a/b:c")),
            ("2026:x", folder("2026:x")),
            ("file:///data/x", folder("/data/x")),
            ("file:///data/100%", folder("/data/100%")),
            ("memory://", Address::Memory),
            ("s3://bucket", in_bucket("bucket", "")),
            ("s3://bucket/", in_bucket("bucket", "")),
            ("s3://my.bucket-1/a/b/", in_bucket("my.bucket-1", "a/b")),
            ("s3://bucket/a=1/b c", in_bucket("bucket", "a=1/b c")),
        ] {
            assert_eq!(Address::parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_mistyped_address_is_refused_with_a_suggestion_and_makes_no_folder() {
        for (text, part) in [
            ("", "nothing at all"),
            (" s3://bucket", "spaces around it"),
            ("s3:/bad", "did you mean s3://bad?"),
            ("s3:bad/x", "did you mean s3://bad/x?"),
            ("s3:", "names no bucket"),
            ("s3://", "names no bucket"),
            ("s3:///bucket", "names no bucket"),
            ("S3://bucket/x", "did you mean s3://bucket/x?"),
            ("s3a://bucket", "did you mean s3://bucket?"),
            ("file:/x", "did you mean file:///x?"),
            ("file:x", "a relative folder is a plain path: did you mean ./x?"),
            ("file:./x", "did you mean ./x?"),
            ("file:../x", "did you mean ../x?"),
            ("file://x/y", "did you mean file:///x/y, or the plain folder x/y?"),
            ("FILE:///x", "did you mean file:///x?"),
            ("file:///a%20b", "%20 is not read as an escape"),
            ("memory:", "did you mean memory://?"),
            ("memory://x", "did you mean memory://?"),
            ("gs://bucket", "is not a store: expected file:///folder"),
            ("az://x", "is not a store: expected file:///folder"),
            ("http://minio:9000/bucket", "belongs into AWS_ENDPOINT"),
            ("https://bucket.s3.amazonaws.com", "belongs into AWS_ENDPOINT"),
            ("a:b", "./a:b"),
            ("c:\\store", "./c:\\store"),
            ("redis://host", "looks like an address"),
            ("s3://bucket//prefix", "did you mean s3://bucket/prefix?"),
            ("s3://bucket/a//b", "did you mean s3://bucket/a/b?"),
            ("s3://bucket/a/../b", "did you mean s3://bucket/a/b?"),
            ("s3://bucket/x?region=eu", "'?' can be part of no"),
            ("s3://bucket/x#y", "'#' can be part of no"),
            ("s3://bucket/a%20b", "'%' can be part of no"),
            ("s3://bucket:9000/x", "':' can be part of no bucket's name"),
            ("s3://KEY:s3cret@bucket/x", "belong into AWS_ACCESS_KEY_ID"),
            ("s3://s3cret@bucket/x", "belong into AWS_ACCESS_KEY_ID"),
        ] {
            let error = Address::parse(text).unwrap_err();
            assert!(matches!(error, JobsError::Invalid(_)), "{text}");
            assert!(error.to_string().contains(part), "{text}: {error}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }
}
