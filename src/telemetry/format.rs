//! Formats a log line: for people with short digests, or as one flat JSON object. In JSON the fields of all spans are
//! beside those of the event, so that `run`, `stage`, `key` and `attempt` are top-level keys of every line about a
//! stage. A field of the event replaces one of a span, an inner span one of an outer span: no key occurs twice.

use std::fmt;

use serde_json::{Map, Value};
use tracing::{Event, Subscriber, field::Field};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{JsonFields, Writer, debug_fn};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Digits of a shortened digest, as everywhere in the program.
const SHORT: usize = 12;
/// Digits of a whole digest.
const DIGEST: usize = 64;

/// One JSON object a line.
pub(super) struct Flat;

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, JsonFields> for Flat {
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(fields) = span.extensions().get::<FormattedFields<JsonFields>>() {
                line.extend(object(&fields.fields));
            }
        }
        let mut fields = String::new();
        context.format_fields(Writer::new(&mut fields), event)?;
        line.extend(object(&fields));
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        line.insert("timestamp".to_owned(), time.into());
        line.insert("level".to_owned(), event.metadata().level().as_str().into());
        writeln!(writer, "{}", Value::Object(line))
    }
}

fn object(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap_or_default()
}

/// A text whose whole digests are cut short.
pub(super) fn short(text: &str) -> String {
    let is_break = |c: char| !c.is_ascii_hexdigit();
    let cut = |piece| match str::trim_end_matches(piece, is_break).len() {
        DIGEST => [&piece[..SHORT], &piece[DIGEST..]],
        _ => [piece, ""],
    };
    text.split_inclusive(is_break).flat_map(cut).collect()
}

/// Fields as text, with digests cut short.
pub(super) fn for_people() -> impl for<'a> FormatFields<'a> + 'static {
    debug_fn(|writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug| {
        let text = format!("{value:?}");
        // A longer text, such as an object's name, is not shortened.
        let text = if text.len() == DIGEST { short(&text) } else { text };
        match field.name() {
            "message" => writer.write_str(&text),
            name => write!(writer, "{name}={text}"),
        }
    })
    .delimited(" ")
}
