//! Rows: one measurement each, finished or failed. A failure, a panic included, is a row too, and the next one is measured.

use std::panic::{AssertUnwindSafe, catch_unwind};

use agrpo_compute::Device;
use agrpo_spec::StageError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was measured, unique in its section.
    pub name: String,
    /// Seconds that it took, warming up included.
    #[serde(default)]
    pub seconds: f64,
    /// Why there is no result, or in what the result is not as it has to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What came out.
    #[serde(default)]
    pub result: Value,
}

/// Where a section reports its rows.
pub struct Rows<'a> {
    device: Device,
    clock: &'a dyn Fn() -> f64,
    emit: &'a mut dyn FnMut(Row),
}

impl std::fmt::Debug for Rows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("device", &self.device).finish_non_exhaustive()
    }
}

impl<'a> Rows<'a> {
    /// `clock` gives seconds since some moment; `emit` gets every row as soon as it is finished.
    pub fn new(device: Device, clock: &'a dyn Fn() -> f64, emit: &'a mut dyn FnMut(Row)) -> Self {
        Self { device, clock, emit }
    }

    /// Measures one row. None if it failed.
    pub fn add<T: Serialize>(
        &mut self,
        name: &str,
        work: impl FnOnce(&Stopwatch<'_>) -> Result<T, StageError>,
    ) -> Option<T> {
        self.add_checked(name, work, |_| None)
    }

    /// The same; `wrong` says in what a result is not as it has to be.
    pub fn add_checked<T: Serialize>(
        &mut self,
        name: &str,
        work: impl FnOnce(&Stopwatch<'_>) -> Result<T, StageError>,
        wrong: impl FnOnce(&T) -> Option<String>,
    ) -> Option<T> {
        self.report(name, work, |result| match serde_json::to_value(result) {
            Ok(value) => (value, wrong(result)),
            Err(error) => (Value::Null, Some(error.to_string())),
        })
    }

    /// Makes what later rows need; the row says only whether and how long.
    pub fn prepare<T>(
        &mut self,
        name: &str,
        work: impl FnOnce(&Stopwatch<'_>) -> Result<T, StageError>,
    ) -> Option<T> {
        self.report(name, work, |_| (Value::Null, None))
    }

    fn report<T>(
        &mut self,
        name: &str,
        work: impl FnOnce(&Stopwatch<'_>) -> Result<T, StageError>,
        judge: impl FnOnce(&T) -> (Value, Option<String>),
    ) -> Option<T> {
        let start = (self.clock)();
        let stopwatch = Stopwatch { device: self.device, clock: self.clock };
        let done = caught(|| work(&stopwatch));
        let (result, error) = match &done {
            Ok(result) => judge(result),
            Err(error) => (Value::Null, Some(first_lines(&error.to_string()))),
        };
        let seconds = (self.clock)() - start;
        (self.emit)(Row { name: name.to_owned(), seconds, error, result });
        done.ok()
    }
}

/// A panic as an error: libtorch's exceptions arrive as panics of its bindings.
pub(super) fn caught<T>(work: impl FnOnce() -> Result<T, StageError>) -> Result<T, StageError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(StageError::Internal(text.unwrap_or("a panic without a message").into()))
    })
}

/// libtorch adds a stack of C++ frames to its errors; the reason is in the first lines.
fn first_lines(text: &str) -> String {
    const LONGEST: usize = 600;
    let text = text.split("Exception raised from").next().unwrap_or_default().trim();
    text.chars().take(LONGEST).collect()
}

/// Measures seconds of work on a device, which is waited for.
pub struct Stopwatch<'a> {
    device: Device,
    clock: &'a dyn Fn() -> f64,
}

impl std::fmt::Debug for Stopwatch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stopwatch").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Stopwatch<'_> {
    /// What `work` gives, and its seconds until the device has computed it.
    pub fn time<T>(
        &self,
        work: impl FnOnce() -> Result<T, StageError>,
    ) -> Result<(T, f64), StageError> {
        self.wait();
        let start = (self.clock)();
        let result = work()?;
        self.wait();
        Ok((result, (self.clock)() - start))
    }

    /// The median of an odd number of times, after one more to warm up.
    pub fn median(
        &self,
        times: usize,
        mut work: impl FnMut() -> Result<(), StageError>,
    ) -> Result<f64, StageError> {
        work()?;
        let mut seconds = vec![];
        for _ in 0..times {
            seconds.push(self.time(&mut work)?.1);
        }
        seconds.sort_by(f64::total_cmp);
        Ok(seconds[times / 2])
    }

    fn wait(&self) {
        if let Device::Cuda(number) = self.device {
            tch::Cuda::synchronize(i64::try_from(number).unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_or_panics_is_a_row_and_the_next_is_measured() {
        let mut all = vec![];
        let mut emit = |row: Row| all.push((row.name, row.error, row.result));
        let mut rows = Rows::new(Device::Cpu, &|| 0.0, &mut emit);
        let refused = StageError::Internal("no kernel\nException raised from here".into());
        assert_eq!(rows.add::<()>("refused", |_| Err(refused)), None);
        assert_eq!(rows.add::<()>("broken", |_| panic!("a defect")), None);
        assert_eq!(rows.add("fine", |_| Ok(3)), Some(3));
        assert_eq!(rows.prepare("made", |_| Ok(5)), Some(5));
        rows.add_checked("wrong", |_| Ok(4), |found| Some(format!("{found} is not 3")));
        let error = |text: &str| Some(text.to_owned());
        assert_eq!(
            all,
            [
                ("refused".to_owned(), error("no kernel"), Value::Null),
                ("broken".to_owned(), error("a defect"), Value::Null),
                ("fine".to_owned(), None, 3.into()),
                ("made".to_owned(), None, Value::Null),
                ("wrong".to_owned(), error("4 is not 3"), 4.into()),
            ]
        );
    }
}
