//! Renders a dataset's rows with the templates of its task. Neither tokenizes nor grades.

use std::sync::Arc;

use agrpo_grading::{Row, Template};
use agrpo_spec::{DatasetTask, Sample, one_line};
use serde_json::{Map, Value};

use crate::error::{Result, data, data_from};

/// One row with its rendered prompt and answer.
#[derive(Debug)]
pub(crate) struct Item {
    pub(super) prompt: String,
    pub(super) system: Option<String>,
    pub(super) answer: Option<String>,
    row: Map<String, Value>,
    /// The row's name in errors.
    pub(super) place: String,
}

/// The task's templates, read once.
#[derive(Debug)]
pub(super) struct Templates {
    prompt: Template,
    answer: Option<Template>,
    system: Option<Template>,
}

impl Templates {
    pub(super) fn read(task: &DatasetTask) -> Result<Self> {
        let read = |key: &str, text: &str| {
            Template::new(text)
                .map_err(|error| data_from(format!("task.dataset.{key}: {error}"), error))
        };
        let some = |key: &str, text: &Option<String>| {
            text.as_deref().map(|text| read(key, text)).transpose()
        };
        Ok(Self {
            prompt: read("prompt", &task.prompt)?,
            answer: some("answer", &task.answer)?,
            system: some("system", &task.system)?,
        })
    }

    pub(super) fn item(&self, row: Row, place: String) -> Result<Item> {
        let render = |key: &str, template: &Template| {
            if let Some(name) = template.columns().iter().find(|name| row.noted.contains_key(*name))
            {
                return Err(data(format!(
                    "task.dataset.{key}, {place}: column {:?} has {}, which would be written \
                     differently: save it as text",
                    one_line(name),
                    row.noted[name]
                )));
            }
            let text = template.render(&row.fields);
            text.map_err(|error| data_from(format!("task.dataset.{key}, {place}: {error}"), error))
        };
        let some = |key: &str, template: &Option<Template>| {
            template.as_ref().map(|template| render(key, template)).transpose()
        };
        let prompt = render("prompt", &self.prompt)?;
        let (answer, system) = (some("answer", &self.answer)?, some("system", &self.system)?);
        Ok(Item { prompt, system, answer, row: row.fields, place })
    }

    pub(super) fn items(&self, rows: Vec<Row>, side: &str) -> Result<Vec<Arc<Item>>> {
        let item = |row: Row| {
            let place = format!("row {} of task.dataset.{side}", row.number);
            self.item(row, place).map(Arc::new)
        };
        rows.into_iter().map(item).collect()
    }
}

impl Item {
    /// The sample that graders receive.
    pub(super) fn sample(&self, id: String, completion: String) -> Sample {
        Sample {
            id,
            place: self.place.clone(),
            prompt: self.prompt.clone(),
            completion,
            answer: self.answer.clone(),
            row: self.row.clone(),
        }
    }
}
