//! The layout of a conversation, and whether a checkpoint's own chat template has the same one. Prompts follow
//! the family's layout whatever a checkpoint brings; its template is rendered for comparison only.

use agrpo_grading::{Message, Role, Template};
use agrpo_mathematics::python::strip;
use agrpo_spec::{ChatLayout, Family, Files, StageError};
use serde_json::{Value, json};

use crate::folder;
use crate::model::ModelConfig;

/// Where transformers keeps a template.
const SETTINGS: &str = "tokenizer_config.json";

/// The roles and contents that are written: a conversation without a system message has that of the layout, if there is
/// one.
fn turns<'a>(layout: &ChatLayout, messages: &'a [Message]) -> Vec<(Role, &'a str)> {
    let has_system = messages.first().is_some_and(|first| first.role == Role::System);
    let default = layout.system.filter(|_| !has_system).map(|system| (Role::System, system));
    let own = messages.iter().map(|message| (message.role, message.content.as_str()));
    default.into_iter().chain(own).collect()
}

/// A conversation as text, up to where the assistant answers.
pub(super) fn conversation(layout: &ChatLayout, messages: &[Message]) -> String {
    let &ChatLayout { begin, role_start, role_end, turn_end, strips, .. } = layout;
    let name = |role| name(layout, role);
    let mut text = begin.to_owned();
    for (role, content) in turns(layout, messages) {
        let content = if strips { strip(content) } else { content };
        text.extend([role_start, name(role), role_end, content, turn_end]);
    }
    text.extend([role_start, name(Role::Assistant), role_end]);
    text
}

fn name(layout: &ChatLayout, role: Role) -> &'static str {
    let [system, user, assistant] = layout.roles;
    match role {
        Role::System => system,
        Role::User => user,
        Role::Assistant => assistant,
    }
}

/// How many special tokens the layout writes in this conversation; contents have none.
pub(super) fn special_tokens(layout: &ChatLayout, messages: &[Message]) -> usize {
    let of = |text: &str| -> usize {
        layout.pieces.iter().map(|piece| text.matches(piece).count()).sum()
    };
    let role = of(layout.role_start) + of(layout.role_end);
    of(layout.begin) + turns(layout, messages).len() * (role + of(layout.turn_end)) + role
}

/// A warning where a folder's chat template lays conversations out differently from prompts.
pub fn other_layout(files: &Files) -> Result<Option<String>, StageError> {
    let config = folder::optional(files, "config.json")?;
    let config = config.map(|bytes| ModelConfig::from_json(&bytes)).transpose()?;
    let family = config.map_or(Family::default(), |config| config.family);
    Ok(folder::optional(files, SETTINGS)?.and_then(|bytes| compared(family, &bytes)))
}

fn compared(family: Family, settings: &[u8]) -> Option<String> {
    // Nothing else of this file is read, so a file that is not JSON does no harm.
    let settings: Value = serde_json::from_slice(settings).unwrap_or_default();
    let (template, name) = (&settings["chat_template"], family.traits().name);
    let is_same = |template| is_laid_out_as(&family.traits().chat, template);
    if template.is_null() || template.as_str().is_some_and(is_same) {
        return None;
    }
    Some(format!(
        "{SETTINGS}: its chat_template is not {name}'s and is not used: prompts have {name}'s layout"
    ))
}

/// Whether a template lays out a question, and a system message before one, as prompts are. `false` for one
/// that cannot be rendered.
fn is_laid_out_as(layout: &ChatLayout, template: &str) -> bool {
    let Ok(template) = Template::new(template) else { return false };
    let message = |role, content: &str| Message { role, content: content.to_owned() };
    let [system, user] = [message(Role::System, "be brief"), message(Role::User, " 1 + 1? ")];
    [vec![user.clone()], vec![system, user]].iter().all(|messages| {
        let all = messages.iter().map(|m| json!({"role": m.role.name(), "content": m.content}));
        let row = json!({
            "messages": all.collect::<Vec<_>>(), "bos_token": layout.begin, "eos_token": "<|endoftext|>",
            "add_generation_prompt": true,
        });
        let text = row.as_object().map(|row| template.render(row));
        matches!(text, Some(Ok(text)) if text == conversation(layout, messages))
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

    /// The parts of a template of the Qwen family that a conversation without tools comes through.
    const QWEN: &str = "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + \
                        '<|im_end|>\n' }}{%- else %}DEFAULT{%- endif %}{%- for message in messages %}\
                        {%- if (message.role == 'user') or (message.role == 'system' and not loop.first) %}\
                        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}\
                        {%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}\
                        {%- endif %}";

    #[test]
    fn each_family_s_template_is_its_own() {
        let system = "{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}";
        let [dream, sdar] = [system, ""].map(|default| {
            let template = QWEN.replace("DEFAULT", default);
            json!({"chat_template": template}).to_string().into_bytes()
        });
        assert_eq!(compared(Family::Dream, &dream), None);
        assert_eq!(compared(Family::Sdar, &sdar), None);
        for (family, settings) in
            [(Family::Dream, &sdar), (Family::Sdar, &dream), (Family::Llada, &sdar)]
        {
            let warning = compared(family, settings).unwrap();
            let name = family.traits().name;
            assert!(warning.ends_with(&format!(
                "is not {name}'s and is not used: prompts have {name}'s layout"
            )));
        }
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
