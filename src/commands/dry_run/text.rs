//! A dry run in words and tables.

use std::time::Duration;

use super::{Decision, DryRun, Kind};
use crate::output;

impl DryRun {
    pub(super) fn describe(&self) -> String {
        let mut lines = vec![format!("run       {} ({}, {})", self.run, self.name, self.numerics)];
        if !self.unfetched.is_empty() {
            let keys = self.unfetched.join(", ");
            lines.push(format!(
                "          without {keys}: its id is another one once they are fetched"
            ));
        }
        lines.push(format!("stages    {} in all", self.stages));
        lines.push(self.table());
        lines.extend(self.kinds.iter().map(|kind| {
            let parts = kind.parts.iter().filter(|(_, time)| *time >= 0.00005);
            let parts = parts.map(|(name, time)| format!("{name} {}", seconds(*time)));
            format!("seconds   {}: {}", kind.kind, parts.collect::<Vec<_>>().join(", "))
        }));
        lines.extend(self.measured());
        let memory = |title: &str, kind: &Kind, parts: &[(&str, u64)]| {
            let part = |(name, bytes): &(&str, u64)| format!("{name} {}", output::size(*bytes));
            let parts: Vec<String> = parts.iter().map(part).collect();
            (!parts.is_empty()).then(|| format!("{title}{}: {}", kind.kind, parts.join(", ")))
        };
        let kinds = self.kinds.iter();
        lines.extend(kinds.filter_map(|kind| memory("memory    ", kind, &kind.memory)));
        let kinds = self.kinds.iter();
        lines.extend(kinds.filter_map(|kind| memory("host      ", kind, &kind.host_memory)));
        lines.extend(self.checkpointing.as_ref().map(Decision::describe));
        lines.extend([self.process(), self.store(), self.assumed(), self.time()]);
        lines.join("\n")
    }

    /// With a column of the host's memory, if a GPU has its own.
    fn table(&self) -> String {
        let peak = |parts: &[(&str, u64)]| match parts.iter().map(|(_, bytes)| bytes).sum() {
            0 => "-".to_owned(),
            peak => output::size(peak),
        };
        let rows = self.kinds.iter().map(|kind| {
            let [name, stages, flops, seconds, writes] = kind.row();
            let [memory, host] = [&kind.memory, &kind.host_memory].map(|parts| peak(parts));
            [name, stages, flops, seconds, writes, memory, host]
        });
        let [a, b, c, d, e] = ["kind", "stages", "TFLOP", "seconds", "writes"];
        if self.gpus.is_some() {
            return output::table([a, b, c, d, e, "GPU memory", "host memory"], rows);
        }
        let rows = rows.map(|[a, b, c, d, e, memory, _]| [a, b, c, d, e, memory]);
        output::table([a, b, c, d, e, "memory"], rows)
    }

    fn measured(&self) -> Option<String> {
        let one = |kind: &Kind| {
            let measured = kind.measured?;
            let [found, estimated] = [measured.seconds, kind.estimated].map(seconds);
            Some(format!("{} {found}, estimated {estimated}", kind.kind))
        };
        let kinds: Vec<String> = self.kinds.iter().filter_map(one).collect();
        (!kinds.is_empty()).then(|| {
            format!(
                "measured  here, the median of the last stages, in seconds: {}",
                kinds.join("; ")
            )
        })
    }

    fn process(&self) -> String {
        let stages = output::count(self.workers as u64, "stage");
        let bytes = output::size(self.process_memory);
        match self.process_host_memory.map(output::size) {
            None => format!(
                "memory    process: {bytes}, with {stages} in hand and what its allocator keeps"
            ),
            Some(host) => format!(
                "memory    process: {bytes} of the GPU, {host} of its host, with {stages} in hand"
            ),
        }
    }

    fn store(&self) -> String {
        let written = output::size(self.bytes);
        if self.kept_bytes == self.bytes {
            return format!("store     {written} over the whole run");
        }
        let kept = output::size(self.kept_bytes);
        format!("store     {written} over the whole run, of which [retention] keeps {kept}")
    }

    fn assumed(&self) -> String {
        let rates = &self.rates;
        let unit = if self.gpus.is_some() { "GPU" } else { "thread" };
        let [products, adapters] = [rates.products, rates.adapters].map(|rate| rate / 1e12);
        format!(
            "assumed   products {products:.2} TFLOP/s of a {unit} (--tflops N says better), adapters {adapters:.2}; \
             hashes {:.1} GB/s of a thread, the store {:.1} GB/s; docs/scale.md says from what",
            rates.hash / 1e9,
            rates.store / 1e9,
        )
    }

    fn time(&self) -> String {
        let places = match self.gpus {
            Some(gpus) => output::count(gpus, "GPU"),
            None => output::count(self.threads as u64, "thread"),
        };
        format!(
            "time      up to {} on {places}, with the longest prompts; an iteration {} s; computing {} of the time",
            output::short_duration(Duration::from_secs_f64(self.chain.seconds)),
            seconds(self.chain.iteration),
            output::percent(self.chain.busy),
        )
    }
}

impl Kind {
    fn row(&self) -> [String; 5] {
        [
            self.kind.to_string(),
            self.stages.to_string(),
            format!("{:.3}", self.flops / 1e12),
            seconds(self.seconds),
            output::size(self.bytes),
        ]
    }
}

/// With about three digits that count.
fn seconds(time: f64) -> String {
    match time {
        100.0.. => format!("{time:.0}"),
        1.0..100.0 => format!("{time:.1}"),
        0.01..1.0 => format!("{time:.3}"),
        _ => format!("{time:.4}"),
    }
}
