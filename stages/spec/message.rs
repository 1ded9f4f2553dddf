//! The text of an error, and the error that caused it.
//!
//! `Display` and `Debug` show the text alone: a library's own `Debug` may print an address with its
//! password. The cause is reached through [`Error::source`], and only there.

use std::{error::Error, fmt, ops::Deref, sync::Arc};

/// What went wrong, in full, and what caused it.
#[derive(Clone)]
pub struct Message {
    text: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Message {
    /// A message that says all a reader needs; `source` is kept for a program that asks for it.
    pub fn caused_by(
        text: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        let source: Box<dyn Error + Send + Sync> = source.into();
        Self { text: text.into(), source: Some(Arc::from(source)) }
    }

    /// An error in its own words.
    pub fn of(error: impl Error + Send + Sync + 'static) -> Self {
        Self::caused_by(error.to_string(), error)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The same cause with a text made of this one.
    #[must_use]
    pub fn reworded(self, words: impl FnOnce(&str) -> String) -> Self {
        Self { text: words(&self.text), source: self.source }
    }
}

impl Deref for Message {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self { text, source: None }
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl fmt::Display for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, formatter)
    }
}

impl Error for Message {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("redis://user:secret@host is closed")]
    struct Secret;

    #[test]
    fn a_cause_is_reached_by_source_alone() {
        let message = Message::caused_by("the queue cannot be reached", Secret);
        let source = message.source().expect("the cause is kept");
        assert!(source.is::<Secret>());
        for shown in [message.to_string(), format!("{message:?}"), format!("{message:#?}")] {
            assert!(!shown.contains("secret") && shown.contains("the queue"), "{shown}");
        }
    }

    #[test]
    fn a_text_alone_has_no_cause_and_a_new_text_keeps_it() {
        assert!(Message::from("plain").source().is_none());
        assert!(Message::from("plain".to_owned()).contains("lai"));
        let message = Message::of(Secret).reworded(|text| text.replace("secret", "***"));
        assert!(message.contains(":***@") && message.source().is_some_and(|it| it.is::<Secret>()));
    }
}
