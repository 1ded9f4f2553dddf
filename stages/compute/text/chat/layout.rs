//! The layout of a conversation, and whether a checkpoint's own chat template has the same one. Prompts follow
//! LLaDA's template whatever a checkpoint brings; its template is rendered for comparison only.

use agrpo_grading::{Message, Role, Template};
use agrpo_mathematics::python::strip;
use agrpo_spec::{Files, StageError};
use serde_json::{Value, json};

use crate::folder;

/// The template's pieces: begin of the text, of a role, end of a role, of a turn.
pub(super) const PIECES: [&str; 4] =
    ["<|startoftext|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"];
/// Between a role and its content.
const BREAK: &str = "\n\n";
/// Where transformers keeps a template.
const SETTINGS: &str = "tokenizer_config.json";

/// A conversation as text, up to where the assistant answers.
pub(super) fn conversation(messages: &[Message]) -> String {
    let [begin, start, end, turn] = PIECES;
    let mut text = begin.to_owned();
    for Message { role, content } in messages {
        let (role, content) = (role.name(), strip(content));
        text.extend([start, role, end, BREAK, content, turn]);
    }
    text.extend([start, Role::Assistant.name(), end, BREAK]);
    text
}

/// A warning where a folder's chat template lays conversations out differently from prompts.
pub fn other_layout(files: &Files) -> Result<Option<String>, StageError> {
    let Some(bytes) = folder::optional(files, SETTINGS)? else { return Ok(None) };
    // Nothing else of this file is read, so a file that is not JSON does no harm.
    let settings: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let template = &settings["chat_template"];
    if template.is_null() || template.as_str().is_some_and(is_llada) {
        return Ok(None);
    }
    Ok(Some(format!(
        "{SETTINGS}: its chat_template is not LLaDA's and is not used: prompts have LLaDA's layout"
    )))
}

/// Whether a template lays out a question, and a system message before one, as prompts are. `false` for one
/// that cannot be rendered.
fn is_llada(template: &str) -> bool {
    let Ok(template) = Template::new(template) else { return false };
    let message = |role, content: &str| Message { role, content: content.to_owned() };
    let [system, user] = [message(Role::System, "be brief"), message(Role::User, " 1 + 1? ")];
    [vec![user.clone()], vec![system, user]].iter().all(|messages| {
        let all = messages.iter().map(|m| json!({"role": m.role.name(), "content": m.content}));
        let row = json!({
            "messages": all.collect::<Vec<_>>(), "bos_token": PIECES[0], "eos_token": "<|endoftext|>",
            "add_generation_prompt": true,
        });
        let text = row.as_object().map(|row| template.render(row));
        matches!(text, Some(Ok(text)) if text == conversation(messages))
    })
}

#[cfg(test)]
mod tests {
    use agrpo_spec::Content;

    use super::*;

    fn warning(settings: &str) -> Option<String> {
        let content = Content::from(settings.as_bytes().to_vec());
        other_layout(&Files::from([(SETTINGS.to_owned(), content)])).unwrap()
    }

    #[test]
    fn a_template_of_another_layout_is_named() {
        let llada = "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = \
                     '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + \
                     '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}\
                     {{ content }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}";
        let of = |template: Value| json!({"chat_template": template}).to_string();
        for settings in ["{}", "no JSON", "[]", &of(json!(null)), &of(json!(llada))] {
            assert_eq!(warning(settings), None, "{settings}");
        }
        let chat_ml = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";
        let endless =
            "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}";
        for template in [
            json!(chat_ml),
            json!("{% for %}"),
            json!(endless),
            json!(llada.replace(" | trim", "")),
        ] {
            insta::allow_duplicates! {
                insta::assert_snapshot!(warning(&of(template)).unwrap(), @"tokenizer_config.json: its chat_template is not LLaDA's and is not used: prompts have LLaDA's layout");
            }
        }
    }
}
