//! One page of Markdown for people: what was asked of a device, what came out, what failed. Knows the names of rows and
//! of their results, and computes nothing but shares and ratios; the document has all of it.

use serde_json::Value;

use super::document::{Document, Section, State};
use super::rows::Row;

/// The page of a document.
pub fn summary(document: &Document) -> String {
    let parts = [
        head(document),
        failed(document),
        sections(document),
        parity(document),
        repeated(document),
        ratio(document),
        speed(document),
        batches(document),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("\n\n") + "\n"
}

impl Document {
    fn rows(&self, section: &str) -> Vec<&Row> {
        let sections = self.sections.iter().filter(|found| found.name == section);
        sections.flat_map(|section| &section.rows).collect()
    }

    /// A number of a row's result.
    fn number(&self, section: &str, row: &str, key: &str) -> Option<f64> {
        self.rows(section).into_iter().find(|found| found.name == row)?.number(key)
    }
}

impl Row {
    fn number(&self, key: &str) -> Option<f64> {
        self.result.get(key)?.as_f64()
    }

    fn is(&self, key: &str) -> bool {
        self.result.get(key) == Some(&Value::Bool(true))
    }
}

fn head(document: &Document) -> Option<String> {
    let device = document.gpu.as_deref().unwrap_or(&document.processor);
    let driver = document.driver.as_deref().unwrap_or("none");
    Some(format!(
        "# {device}\n\nMeasured by `agrpo bench-gpu`, {}, on {} in class {} with libtorch {} (driver: {driver}), \
         beside {} cores of {}. It took {:.0} of {:.0} seconds. The JSON file beside this page has every figure, with \
         what it rests on.",
        document.agrpo,
        document.device,
        document.numerics,
        document.libtorch,
        document.cores,
        document.processor,
        document.seconds,
        document.budget_seconds,
    ))
}

fn failed(document: &Document) -> Option<String> {
    let failures = document.failures();
    if failures.is_empty() {
        return Some("## Failed\n\nNothing.".to_owned());
    }
    let lines = failures.iter().map(|line| format!("* {}", line.replace('\n', " ")));
    Some(format!("## Failed\n\n{}", lines.collect::<Vec<_>>().join("\n")))
}

fn sections(document: &Document) -> Option<String> {
    let row = |section: &Section| {
        let state = match section.state {
            State::Done => "done",
            State::Failed => "failed",
            State::Skipped => "skipped",
        };
        let why = section.error.as_deref().unwrap_or_default().replace(['\n', '|'], " ");
        // What was not begun took no time, and had no limit.
        let is_skipped = section.state == State::Skipped;
        let shown = |number| if is_skipped { String::new() } else { seconds(number) };
        let [seconds, limit] = [section.seconds, section.limit_seconds].map(shown);
        vec![section.title(), state.to_owned(), seconds, limit, why]
    };
    table(
        "Sections",
        &["section", "state", "seconds", "limit", "why"],
        document.sections.iter().map(row),
    )
}

fn parity(document: &Document) -> Option<String> {
    let row = |row: &&Row| {
        let share = |key| row.number(key).map_or_else(String::new, |value| format!("{value:.1e}"));
        Some(row.number("relative")?).map(|_| {
            let shares = ["relative", "relative_of_processor", "allowed"].map(share);
            [vec![row.name.clone()], shares.to_vec()].concat()
        })
    };
    let rows = document.rows("parity");
    let head = ["numbers", "relative distance", "the processor's own", "allowed"];
    table("Parity with the processor's f32", &head, rows.iter().filter_map(row))
}

fn repeated(document: &Document) -> Option<String> {
    let (used, unused): (Vec<_>, Vec<_>) =
        document.rows("operations").into_iter().partition(|row| !row.name.starts_with("not used"));
    let stages = document.rows("replay");
    if used.is_empty() && stages.is_empty() {
        return None;
    }
    let count = |rows: &[&Row], key| rows.iter().filter(|row| row.is(key)).count();
    Some(format!(
        "## The same bits again\n\n* {} of {} operations that stages use gave the same bits twice; of {} that they do \
         not use, {} were refused.\n* {} of {} kinds of stages gave the same bytes when they were replayed.",
        count(&used, "repeats"),
        used.len(),
        unused.len(),
        count(&unused, "refused"),
        count(&stages, "identical"),
        stages.iter().filter(|row| row.result.get("identical").is_some()).count(),
    ))
}

fn ratio(document: &Document) -> Option<String> {
    let of = |section: &Section| {
        let rows = section.rows.iter();
        let of_section = move |row: &Row| {
            let deviation = row.number("ratio_deviation")?;
            let settings = [section.products.clone(), section.settings.clone()];
            Some([&settings[..], &[row.name.clone(), format!("{deviation:.2e}")]].concat())
        };
        rows.filter_map(of_section).collect::<Vec<_>>()
    };
    let rows = document.sections.iter().filter(|section| section.name == "ratio").flat_map(of);
    let head = ["products", "settings", "ratio", "deviation"];
    table("Largest |ratio - 1| of fresh trajectories", &head, rows)
}

fn speed(document: &Document) -> Option<String> {
    let row = |row: &&Row| {
        let own = row.number("seconds")?;
        let share = row.number("share_of_peak");
        let shown = |share: Option<f64>| share.map_or_else(String::new, percent);
        let memory = |bytes: Option<f64>| {
            bytes.map_or_else(String::new, |bytes| format!("{:.1} GB", bytes / 1e9))
        };
        let other = |key| document.number("reference", &row.name, key);
        let torch = other("seconds");
        Some(vec![
            row.name.clone(),
            seconds(own),
            shown(share),
            memory(row.number("memory")),
            torch.map_or_else(String::new, seconds),
            shown(torch.and_then(|torch| Some(share? * own / torch))),
            memory(other("memory")),
        ])
    };
    let rows = [document.rows("model"), document.rows("update")].concat();
    let head = [
        "what",
        "seconds",
        "share of peak",
        "memory",
        "PyTorch, seconds",
        "share of peak",
        "memory",
    ];
    table("Speed", &head, rows.iter().filter_map(row))
}

fn batches(document: &Document) -> Option<String> {
    let of_row = |row: &Row| {
        let precision = row.name.rsplit(", ").next().unwrap_or_default().to_owned();
        let of_operation = move |one: &Value| {
            let operation = one.get("operation")?.as_str()?.to_owned();
            let groups = one.get("sizes")?.as_array()?;
            let lists = groups.iter().map(Value::to_string).collect::<Vec<_>>().join(" ");
            Some(vec![precision.clone(), operation, groups.len().to_string(), lists])
        };
        let all = row.result.as_array().into_iter().flatten();
        all.filter_map(of_operation).collect::<Vec<_>>()
    };
    let first = document.sections.iter().find(|section| section.name == "ratio")?;
    let rows = first.rows.iter().filter(|row| row.name.starts_with("batches"));
    let title = format!("Sizes of batches that give a row the same bits ({})", first.products);
    let head = ["precision", "operation", "groups", "sizes"];
    table(&title, &head, rows.flat_map(of_row))
}

fn table(title: &str, head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Option<String> {
    let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
    let rows: Vec<_> = rows.map(|row| line(&row)).collect();
    if rows.is_empty() {
        return None;
    }
    let names = format!("| {} |", head.join(" | "));
    let rule = format!("|{}", " --- |".repeat(head.len()));
    Some(format!("## {title}\n\n{names}\n{rule}\n{}", rows.join("\n")))
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// With three digits or so.
fn seconds(seconds: f64) -> String {
    match seconds {
        long if long >= 100.0 => format!("{long:.0}"),
        short if short >= 1.0 => format!("{short:.1}"),
        shorter if shorter >= 0.001 => format!("{shorter:.4}"),
        shortest => format!("{shortest:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gpu_bench::Load;

    fn section(name: &str, state: State, error: Option<&str>, rows: &[(&str, Value)]) -> Section {
        let row = |(name, result): &(&str, Value)| Row {
            name: (*name).to_owned(),
            seconds: 1.0,
            error: (result["repeats"] == false).then(|| "other bits".to_owned()),
            result: result.clone(),
        };
        Section {
            name: name.to_owned(),
            products: "cublas".to_owned(),
            settings: "CUBLAS_WORKSPACE_CONFIG=:4096:8".to_owned(),
            state,
            limit_seconds: 60.0,
            seconds: 12.34,
            error: error.map(str::to_owned),
            rows: rows.iter().map(row).collect(),
        }
    }

    fn measured() -> Vec<Section> {
        let speed = |seconds, more: Value| {
            let mut all = json!({"seconds": seconds, "memory": 4.2e10});
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        let batches = json!([{"operation": "head, 8 to 16", "sizes": [[8, 16], [32]]}]);
        vec![
            section(
                "parity",
                State::Done,
                None,
                &[(
                    "logits, bf16",
                    json!({"relative": 4e-3, "relative_of_processor": 3.9e-3, "allowed": 1.56e-2}),
                )],
            ),
            section(
                "ratio",
                State::Done,
                None,
                &[
                    ("ratio, 1 states a pass, f32", json!({"ratio_deviation": 1.5e-5})),
                    ("batches, f32", batches),
                ],
            ),
            section(
                "model",
                State::Failed,
                None,
                &[
                    ("forward", speed(0.2, json!({"share_of_peak": 0.4}))),
                    ("gradient", speed(0.1, json!({"share_of_peak": 0.3, "repeats": false}))),
                ],
            ),
            section("reference", State::Done, None, &[("forward", speed(0.16, json!({})))]),
            section("update", State::Failed, Some("not finished within 60 s"), &[]),
            section("doctor", State::Skipped, Some("1 s are left of the budget"), &[]),
        ]
    }

    #[test]
    fn the_page_says_what_came_out_and_what_failed() {
        let document = Document {
            agrpo: "0.1.0".to_owned(),
            libtorch: "2.11.0+cu130".to_owned(),
            schema: Document::SCHEMA,
            device: "cuda:0".to_owned(),
            gpu: Some("NVIDIA H200".to_owned()),
            driver: Some("580.1".to_owned()),
            memory: None,
            numerics: "cuda:90".to_owned(),
            processor: "a processor".to_owned(),
            cores: 16,
            peak_flop_per_second: Some(989.4e12),
            assumptions: Document::assumptions(),
            load: Load::llada_8b(),
            ratio_load: Load::middle(),
            budget_seconds: 340.0,
            seconds: 61.7,
            sections: measured(),
        };
        insta::assert_snapshot!(summary(&document), @r"
            # NVIDIA H200

            Measured by `agrpo bench-gpu`, 0.1.0, on cuda:0 in class cuda:90 with libtorch 2.11.0+cu130 (driver: 580.1), beside 16 cores of a processor. It took 62 of 340 seconds. The JSON file beside this page has every figure, with what it rests on.

            ## Failed

            * model, gradient: other bits
            * update: not finished within 60 s

            ## Sections

            | section | state | seconds | limit | why |
            | --- | --- | --- | --- | --- |
            | parity | done | 12.3 | 60.0 |  |
            | ratio (cublas) | done | 12.3 | 60.0 |  |
            | model | failed | 12.3 | 60.0 |  |
            | reference | done | 12.3 | 60.0 |  |
            | update | failed | 12.3 | 60.0 | not finished within 60 s |
            | doctor | skipped |  |  | 1 s are left of the budget |

            ## Parity with the processor's f32

            | numbers | relative distance | the processor's own | allowed |
            | --- | --- | --- | --- |
            | logits, bf16 | 4.0e-3 | 3.9e-3 | 1.6e-2 |

            ## Largest |ratio - 1| of fresh trajectories

            | products | settings | ratio | deviation |
            | --- | --- | --- | --- |
            | cublas | CUBLAS_WORKSPACE_CONFIG=:4096:8 | ratio, 1 states a pass, f32 | 1.50e-5 |

            ## Speed

            | what | seconds | share of peak | memory | PyTorch, seconds | share of peak | memory |
            | --- | --- | --- | --- | --- | --- | --- |
            | forward | 0.2000 | 40.0 % | 42.0 GB | 0.1600 | 50.0 % | 42.0 GB |
            | gradient | 0.1000 | 30.0 % | 42.0 GB |  |  |  |

            ## Sizes of batches that give a row the same bits (cublas)

            | precision | operation | groups | sizes |
            | --- | --- | --- | --- |
            | f32 | head, 8 to 16 | 2 | [8,16] [32] |
            ");
    }
}
