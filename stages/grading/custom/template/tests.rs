//! The texts of templates: the same as without bounds, and never beyond the bounds.

use serde_json::json;

use super::*;

mod table;

fn rendered(source: &str, row: &Value) -> Result<String, String> {
    let template = Template::new(source).map_err(|error| error.to_string())?;
    template.render(row.as_object().unwrap()).map_err(|error| error.to_string())
}

#[test]
fn columns_become_text() {
    let row = json!({"word": "cab", "n": 3, "all": ["a", "b"], "deep": {"x": "<b>"}});
    for (source, expected) in [
        ("sort {{ word }}", "sort cab"),
        ("{{ n }}{{ n + 1 }}", "34"),
        ("{{ all | join(',') }} {{ all[1] }}", "a,b b"),
        ("{{ deep.x }}", "<b>"),
        ("{% for x in all %}{{ x }}{{ loop.index }} {% endfor %}", "a1 b2 "),
        ("{% if n > 2 %}many{% else %}{{ nothing }}{% endif %}", "many"),
        ("{{ missing | default('none') }}", "none"),
        ("{{ range(3) | join }}", "012"),
    ] {
        assert_eq!(rendered(source, &row).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn a_missing_column_is_an_error_and_never_empty() {
    let row = json!({"word": "cab", "answer": "abc"});
    insta::assert_snapshot!(
        [
            "{{ wrod }}",
            "{{ word.deep.er }}",
            "{{ word",
            "{% nonsense %}",
            "{{ word | frob }}",
            "{% for i in range(9999) %}{% for j in range(9999) %}x{% endfor %}{% endfor %}",
        ]
        .map(|source| rendered(source, &row).unwrap_err())
        .join("\n"),
        @r#"
        no column "wrod": the row has "answer", "word"
        line 1: undefined value
        line 1: syntax error: unexpected end of input, expected end of variable block
        line 1: syntax error: unknown statement nonsense
        line 1: unknown filter: filter frob is unknown
        line 1: engine ran out of fuel
        "#
    );
}

/// The error of a template that is hostile.
fn refused(source: &str, row: &Value) -> String {
    rendered(source, row).expect_err(source)
}

/// Templates that make more and more, each in its own way, or make the crate panic.
#[rustfmt::skip]
const HOSTILE: &[&str] = &[
    "{% set a = namespace(x=x) %}{% for i in range(60) %}{% set a.x = a.x ~ a.x %}{% endfor %}{{ a.x }}",
    "{% set a = namespace(x=x) %}{% for i in range(60) %}{% set a.x = a.x + a.x %}{% endfor %}{{ a.x }}",
    "{% set a = namespace(x=list) %}{% for i in range(60) %}{% set a.x = a.x + a.x %}{% endfor %}{{ a.x | length }}",
    "{% set a = namespace(x=list) %}{% for i in range(60) %}{% set a.x = [a.x, a.x] %}{% endfor %}{{ a.x }}",
    "{% set a = namespace(x=list) %}{% for i in range(9999) %}{% set a.x = [a.x] %}{% endfor %}{{ a.x }}",
    "{% set a = namespace() %}{% set a.x = a %}{{ a }}",
    "{% set a = namespace(x='x') %}{% for i in range(60) %}{% set y %}{{ a.x }}{{ a.x }}{% endset %}{% set a.x = y %}{% endfor %}{{ a.x }}",
    "{% set a = x * 1000 %}{% set b = [a, a, a, a, a, a, a, a, a, a] %}{{ b * 100 }}",
    "{{ x * n }}",
    "{{ list * n }}",
    "{{ (list * 10000) * 10000 | length }}",
    "{{ x | indent(10**9) }}",
    "{{ x | indent(n) }}",
    "{{ x | indent(width=n, first=true) }}",
    "{{ x | replace('', x * 100000) }}",
    "{{ (x * 10000) | replace('a', x * 10000) }}",
    "{{ range(100000) | join(x * 10000) }}",
    "{{ (x * 10000) | join(x * 10000) }}",
    "{{ '%999999999d' | format(1) }}",
    "{{ '%.999999999f' | format(1.5) }}",
    "{{ '%*d' | format(n, 1) }}",
    "{{ '%s' * 1000 | format(1) }}{{ ('%(a)s' * 9000) | format(a=x * 10000) }}",
    "{{ list | batch(n) }}",
    "{{ list | batch(10**12, 0) }}",
    "{{ list | slice(n) }}",
    "{{ range(n) | list }}",
    "{% for i in range(99999) %}{% set y = range(100000) | list | sort | length %}{% endfor %}",
    "{% for i in range(99999) %}{% set y = (x * 10000) | upper %}{% endfor %}",
    "{% for i in range(99999) %}aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa{% endfor %}",
    "{% set y %}{% for i in range(99999) %}aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa{% endfor %}{% endset %}{{ y }}",
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "{% block a %}{{ self.a() }}{% endblock %}",
    "{% for i in [[1]] recursive %}{{ loop([i]) }}{% endfor %}",
    "{% include 'template' %}",
    "{% extends 'template' %}",
    "{{ debug() }}",
    "{% for i in list %}{{ loop.cycle() }}{% endfor %}",
    "{% for i in list %}{{ loop.cycle(*[]) }}{% endfor %}",
    "{{ 5 is divisibleby(0) }}{{ list | select('divisibleby', 0) }}",
    "{{ dict(*range(99999)) }}",
    "{{ dict(*x, *x, *x, *x, *x, *x, *x, *x, *x) }}",
    "{% for i in range(400) %}{% for j in range(400) %}{% for k in range(400) %}{% endfor %}{% endfor %}{% endfor %}",
];

#[test]
fn nothing_grows_beyond_its_bounds() {
    let row = json!({"x": "abcdefgh", "n": 1_000_000_000_u64, "list": [1, 2, 3]});
    let rendered = |source: &&str| rendered(source, &row).is_ok();
    assert_eq!(HOSTILE.iter().copied().filter(rendered).collect::<Vec<_>>(), [""; 0]);
    insta::assert_snapshot!(
        [
            "{% set a = namespace(x=x) %}{% for i in range(60) %}{% set a.x = a.x ~ a.x %}{% endfor %}",
            "\n{{ x | indent(10**9) }}",
            "{{ x * n }}",
            "{% for i in range(99999) %}{{ x * 1000 }}{% endfor %}",
            "{% for i in range(2000) %}{{ x * 100 }}{% endfor %}",
            "{% set a = namespace(x=1) %}{% for i in range(999) %}{% set a.x = [a.x] %}{% endfor %}",
            "{% include 'other' %}",
            "{% for i in list %}{{ loop.cycle() }}{% endfor %}",
            "{{ 5 is divisibleby(0) }}",
            "{{ (list * 8000) | select('in', list * 8000) }}",
        ]
        .map(|source| refused(source, &row))
        .join("\n"),
        @r#"
        line 1: invalid operation: a value of more than 1048576 bytes
        line 2: invalid operation: a value of more than 1048576 bytes
        line 1: invalid operation: a value of more than 1048576 bytes
        line 1: invalid operation: the template handles more than 67108864 bytes
        the text has 1600000 bytes: expected at most 1048576
        line 1: invalid operation: a value nests deeper than 64
        line 1: include, import and extends need other templates, and there are none
        line 1: cycle needs its values one by one, and at least one
        line 1: invalid operation: unable to divide 5 by 0
        line 1: invalid operation: the template handles more than 67108864 bytes
        "#
    );
}

#[test]
fn a_chain_of_any_length_is_read_or_refused() {
    let row = json!({"x": "a", "n": 1});
    let many = |text: &str| text.repeat(100_000);
    for source in [
        format!("{{{{ {}n }}}}", many("-")),
        format!("{{{{ {}n }}}}", many("- ")),
        format!("{{{{ {}n }}}}", many("not ")),
        format!("{{{{ n{} }}}}", many("+1")),
        format!("{{{{ n{} }}}}", many(".a")),
        format!("{{{{ x{} }}}}", many("|upper")),
        format!("{{{{ x{} }}}}", many("[0]")),
        format!("{{{{ {}n{} }}}}", many("("), many(")")),
        format!("{{{{ {}n{} }}}}", many("["), many("]")),
        format!("{{{{ {}n }}}}", many("n if n else ")),
        format!("{{{{ n{} }}}}", many(" < n")),
        format!("{{% if n %}}{}{{% endif %}}", many("{% elif n %}")),
        format!("{}{}", many("{% if n %}"), many("{% endif %}")),
        format!("{}{}", many("{% for i in x %}"), many("{% endfor %}")),
        format!("{{{{ [{}] }}}}", many("1,")),
    ] {
        let message = refused(&source, &row);
        assert!(message.contains("more than 1000") || message.contains("recursion"), "{message}");
    }
}

#[test]
fn a_null_is_never_a_word() {
    let row = json!({"a": null, "b": [1, null], "c": {"d": null}, "x": "abc"});
    for source in [
        "{{ a }}",
        "{{ x ~ a }}",
        "{{ a ~ x }}",
        "{{ a | string }}",
        "{{ a | upper }}",
        "{{ a | trim }}",
        "{{ b }}",
        "{{ b | join }}",
        "{{ c.d }}",
        "{{ '%s' | format(a) }}",
        "{{ b[1] }}",
        "{% set y %}{{ a }}{% endset %}{{ y }}",
        "{{ x | replace('b', a) }}",
        "{{ x | replace(a, 'b') }}",
        "{{ [x] | map('replace', 'b', a) | first }}",
        "{{ [b] | map('upper') | first }}",
        "{{ x | join(a) }}",
        "{{ x | trim(a) }}",
        "{% filter replace('b', a) %}b{% endfilter %}",
    ] {
        let message = refused(source, &row);
        assert!(message.contains("null"), "{source}: {message}");
    }
    for filter in
        "capitalize e escape indent join lower pprint replace('a','b') safe string title trim upper"
            .split(' ')
    {
        for holder in ["b", "c", "[b]", "{'k': b}"] {
            let message = refused(&format!("{{{{ {holder} | {filter} }}}}"), &row);
            assert!(message.contains("null"), "{holder} | {filter}: {message}");
        }
    }
    insta::assert_snapshot!(refused("{{ x }}{{ a }}", &row), @r#"column "a" is null, which is no text: leave the row out, or say what stands for it, as in {{ a | default("none", true) }}"#);
    insta::assert_snapshot!(refused("{{ c.d }}", &json!({"c": {"d": null}})), @"line 1: invalid operation: null is no text");
    for (source, expected) in [
        ("{{ a | default('-', true) }}", "-"),
        ("{% if a %}{{ a }}{% else %}none{% endif %}", "none"),
        ("{{ 'none' if a is none else a }}", "none"),
        ("{{ b[0] }}", "1"),
        ("{{ b | length }} {{ b | first }} {{ b | list | length }}", "2 1 2"),
        ("{{ b | select | join }} {{ b | reject('none') | join }} {{ none in b }}", "1 1 True"),
    ] {
        assert_eq!(rendered(source, &row).as_deref(), Ok(expected), "{source}");
    }
}

/// Bounds change no prompt: the texts are those of the crate alone.
#[test]
fn bounds_change_no_sound_template() {
    let row = json!({
        "x": "one two\nthree", "n": 3, "f": 2.5, "l": [3, 1, 2], "m": {"k": "v", "a": 1}, "e": [], "t": true,
        "deep": [[1, [2]], {"q": ["r"]}],
    });
    for source in [
        "{{ x }} {{ n }} {{ f }} {{ l }} {{ m }} {{ e }} {{ t }} {{ deep }}",
        "{{ n + 1 }} {{ n * 2 }} {{ f * 2 }} {{ n * f }} {{ t * 2 }} {{ n - 5 }} {{ n / 2 }} {{ n // 2 }} {{ n % 2 }} {{ n ** 2 }} {{ -n }}",
        "{{ 9223372036854775807 * 2 }} {{ 9223372036854775807 + 1 }}",
        "{{ x + x }} {{ l + l }} {{ l + [x] }} {{ (l + l)[2] }} {{ (l + l) | length }} {{ x * 2 }} {{ l * 2 }} {{ 2 * l }}",
        "{{ x ~ n ~ f ~ l ~ m ~ t }}",
        "{{ l[1:] }} {{ l[::-1] }} {{ x[2:5] }} {{ x[::-1] }} {{ l[1:][0] }} {{ l[-1] }} {{ x[0] }}",
        "{{ l | sort | join(', ') }} {{ x | list | sort | join }} {{ l | reverse | list }} {{ x | reverse }}",
        "{{ x | indent(2) }} {{ x | indent(width=3, first=true) }} {{ x | replace('one', '1') }}",
        "{{ x | split | length }} {{ x | split(' ') }} {{ x | lines | first }} {{ x | title }} {{ x | capitalize }}",
        "{{ '%5.2f|%s' | format(f, x) }} {{ '%(a)s' | format(a=n) }}",
        "{{ m | items | list }} {{ m | dictsort }} {{ m.k }} {{ m['a'] }} {{ dict(a=1, b=[2]) }}",
        "{{ l | batch(2, 0) }} {{ l | slice(2) }} {{ l | sum }} {{ l | min }} {{ l | max }} {{ l | unique | list }}",
        "{{ l | map('string') | join('-') }} {{ l | select('odd') | list }} {{ l | reject('odd') | list }}",
        "{{ l | zip(x) | list }} {{ l | chain(l) | list }} {{ m | chain({'z': 1}) }} {{ [m] | map(attribute='k') | list }}",
        "{{ [m, m] | groupby('k') }} {{ m | pprint }} {{ x | escape }} {{ '<' | e }} {{ f | round(1) }} {{ f | int }}",
        "{% for i in l %}{{ loop.index }}:{{ i }}{% if not loop.last %}, {% endif %}{% else %}none{% endfor %}",
        "{% for i in e %}x{% else %}none{% endfor %} {% for k, v in m | items %}{{ k }}={{ v }} {% endfor %}",
        "{% for i in deep recursive %}{{ loop(i) if i is iterable and i is not mapping else i }}{% endfor %}",
        "{% macro twice(a, b='-') %}{{ a }}{{ b }}{{ a }}{% endmacro %}{{ twice(n) }} {{ twice(x, b=n) }}",
        "{% macro box() %}[{{ caller() }}]{% endmacro %}{% call box() %}in {{ n }}{% endcall %}",
        "{% set y = n + 1 %}{{ y }} {% set z %}<{{ x }}>{% endset %}{{ z }} {% with a = 1, b = 2 %}{{ a + b }}{% endwith %}",
        "{% set ns = namespace(i=0) %}{% for i in l %}{% set ns.i = ns.i + i %}{% endfor %}{{ ns.i }}",
        "{% filter upper %}a {{ x }}{% endfilter %} {% block b %}in {{ n }}{% endblock %} {{ self.b() }}",
        "{% autoescape true %}{{ '<b>' }}<i>{{ '<b>' | safe }}{% endautoescape %} {% raw %}{{ x }}{% endraw %}",
        "{{ n < 4 < 5 }} {{ n == 3 and x }} {{ 'one' in x }} {{ 3 in l }} {{ x is string }} {{ nothing is defined }}",
        "{{ 'a' if n > 2 else 'b' }}{{ 'c' if false }} {{ nothing | default('d') }} {{ range(1, 7, 2) | list }} {{ range(3) }}",
        "{%- if n -%} a {%- endif -%}  b\n{# no #}\n",
        "{{ {'a': l} }} {{ (1, 2) }} {{ [] }} {{ 1e3 }} {{ 0.1 + 0.2 }}",
    ] {
        let mut plain = Environment::new();
        plain.set_undefined_behavior(UndefinedBehavior::Strict);
        let plain = plain.render_str(source, &row).map_err(|error| error.to_string());
        assert_eq!(rendered(source, &row), plain, "{source}");
    }
}
