//! A strict reader of Prometheus' text format: every deviation is an error.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>, and of `promtool check metrics` the
//! rules about names and units.

use std::collections::{BTreeMap, BTreeSet};

pub(crate) type Labels = BTreeMap<String, String>;

/// One metric with all of its series.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) help: String,
    pub(crate) kind: String,
    /// Name, labels and value of each sample.
    pub(crate) samples: Vec<(String, Labels, f64)>,
}

impl Family {
    /// The sum of all samples of that name whose labels include these.
    pub(crate) fn sum(&self, name: &str, with: &[(&str, &str)]) -> f64 {
        let has = |labels: &Labels| {
            with.iter().all(|(key, value)| labels.get(*key).is_some_and(|found| found == value))
        };
        let ours = self.samples.iter().filter(|(found, labels, _)| found == name && has(labels));
        ours.map(|(_, _, value)| value).sum()
    }
}

/// All metrics of a scrape by name; an error that names the line if any rule is broken.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<String, Family>, String> {
    if !text.ends_with('\n') {
        return Err("the last line does not end".to_owned());
    }
    let mut families = BTreeMap::<String, Family>::new();
    let (mut current, mut help) = (String::new(), None::<(String, String)>);
    for line in text.lines().filter(|line| !line.is_empty()) {
        let wrong = |why: &str| Err(format!("{why}: {line}"));
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, words) = rest.split_once(' ').unwrap_or((rest, ""));
            if words.is_empty() || help.is_some() || families.contains_key(name) {
                return wrong("help is empty, comes twice or has no type after it");
            }
            help = Some((name.to_owned(), words.to_owned()));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, ""));
            let Some((_, help)) = help.take().filter(|(of, _)| of == name) else {
                return wrong("a type without its help right before it");
            };
            check_name(name, kind).map_err(|why| format!("{why}: {line}"))?;
            let family = Family { help, kind: kind.to_owned(), samples: vec![] };
            families.insert(name.to_owned(), family);
            name.clone_into(&mut current);
        } else if line.starts_with('#') {
            return wrong("a comment that is neither help nor type");
        } else {
            let (name, labels, value) = sample(line).map_err(|why| format!("{why}: {line}"))?;
            let Some(family) = families.get_mut(&current).filter(|_| help.is_none()) else {
                return wrong("a sample without a type");
            };
            let part = name.strip_prefix(current.as_str()).unwrap_or("?");
            let parts: &[&str] = match family.kind.as_str() {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            if !parts.contains(&part) {
                return wrong("a sample of another metric");
            }
            if family.kind == "counter" && !(value >= 0.0 && value.is_finite()) {
                return wrong("a counter that is not counted");
            }
            if family.samples.iter().any(|(n, l, _)| (n, l) == (&name, &labels)) {
                return wrong("a series twice");
            }
            family.samples.push((name, labels, value));
        }
    }
    for (name, family) in &families {
        if family.samples.is_empty() {
            return Err(format!("{name} has no sample"));
        }
        if family.kind == "histogram" {
            check_histogram(name, family)?;
        }
    }
    Ok(families)
}

/// Snake case, base units, `_total` on counters and on nothing else.
fn check_name(name: &str, kind: &str) -> Result<(), String> {
    if !["counter", "gauge", "histogram"].contains(&kind) {
        return Err("an unknown type".to_owned());
    }
    let words: Vec<&str> = name.split('_').collect();
    let plain = |word: &&str| {
        !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    let other_unit = ["ms", "milliseconds", "minutes", "hours", "kb", "kilobytes", "mb", "percent"];
    if !words.iter().all(plain) || words.iter().any(|word| other_unit.contains(word)) {
        return Err("a name that is not snake case in base units".to_owned());
    }
    if (words.last() == Some(&"total")) != (kind == "counter") {
        return Err("`_total` marks counters".to_owned());
    }
    match words.last() {
        Some(&("bucket" | "count" | "sum")) => Err("a name of a histogram's part".to_owned()),
        _ => Ok(()),
    }
}

fn sample(line: &str) -> Result<(String, Labels, f64), String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, rest) = line.split_at(end);
    let mut labels = Labels::new();
    let mut rest = match rest.strip_prefix('{') {
        None => rest,
        Some(mut rest) => loop {
            if let Some(after) = rest.strip_prefix('}') {
                break after;
            }
            let (key, after) = rest.split_once("=\"").ok_or("a label without a value")?;
            let is_name = key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            if key.is_empty() || !is_name || key.starts_with("__") {
                return Err(format!("{key} is no name of a label"));
            }
            let (value, after) = quoted(after)?;
            if labels.insert(key.to_owned(), value).is_some() {
                return Err(format!("{key} comes twice"));
            }
            rest = match after.strip_prefix(',') {
                Some(after) if !after.starts_with('}') => after,
                None if after.starts_with('}') => after,
                _ => return Err("labels are not separated".to_owned()),
            };
        },
    };
    rest = rest.strip_prefix(' ').ok_or("no space before the value")?;
    let value = match rest {
        "+Inf" => f64::INFINITY,
        number => number.parse().map_err(|_| format!("{number} is no number"))?,
    };
    Ok((name.to_owned(), labels, value))
}

/// A label's value up to its closing quote, and what follows.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let (mut value, mut characters) = (String::new(), text.char_indices());
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(match characters.next() {
                Some((_, '\\')) => '\\',
                Some((_, '"')) => '"',
                Some((_, 'n')) => '\n',
                _ => return Err("an unknown escape".to_owned()),
            }),
            other => value.push(other),
        }
    }
    Err("a label's value does not end".to_owned())
}

/// Buckets grow with their bounds, end with +Inf and agree with the count; each series has a sum.
fn check_histogram(name: &str, family: &Family) -> Result<(), String> {
    let without_bound = |labels: &Labels| {
        labels.iter().filter(|(key, _)| *key != "le").map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let series: BTreeSet<Labels> =
        family.samples.iter().map(|(_, labels, _)| without_bound(labels)).collect();
    for labels in series {
        let of = |part: &str| {
            let part = format!("{name}{part}");
            let ours = |(found, of, _): &&(String, Labels, f64)| {
                *found == part && without_bound(of) == labels
            };
            family.samples.iter().filter(ours).collect::<Vec<_>>()
        };
        let bound = |labels: &Labels| match labels.get("le").map(String::as_str) {
            Some("+Inf") => Some(f64::INFINITY),
            other => other.and_then(|bound| bound.parse().ok()),
        };
        let buckets: Option<Vec<(f64, f64)>> =
            of("_bucket").iter().map(|(_, labels, value)| Some((bound(labels)?, *value))).collect();
        let buckets = buckets.ok_or_else(|| format!("{name} has a bucket without a bound"))?;
        let grow = buckets.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1);
        let (count, sum) = (of("_count"), of("_sum"));
        let whole = buckets.last().is_some_and(|(bound, value)| {
            bound.is_infinite() && count.len() == 1 && count[0].2.to_bits() == value.to_bits()
        });
        if !grow || !whole || sum.len() != 1 {
            return Err(format!("{name} {labels:?} is no histogram: {buckets:?}"));
        }
    }
    Ok(())
}
