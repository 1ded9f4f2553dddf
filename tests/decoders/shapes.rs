//! Inputs of extreme shapes: nests, chains and rows beyond any bound. Every decoder gets all of them.

/// Parts of a nest or a chain.
const MANY: usize = 100_000;
/// More than a row may have.
const LONG: usize = 17 << 20;

fn around(open: &str, inside: &str, close: &str) -> Vec<u8> {
    [open.repeat(MANY), inside.to_owned(), close.repeat(MANY)].concat().into_bytes()
}

fn filled(before: &str, filling: &str, after: &str, length: usize) -> Vec<u8> {
    [before, &filling.repeat(length / filling.len()), after].concat().into_bytes()
}

/// All of them, with what each is called.
pub fn shapes() -> Vec<(&'static str, Vec<u8>)> {
    let keys: String = (0..500_000).map(|n| format!("\"k{n}\":1,")).collect();
    let columns: String = (0..500_000).map(|n| format!("c{n},")).collect();
    let dotted = format!("a{} = 1\n", ".a".repeat(MANY));
    vec![
        ("lists in lists", around("[", "1", "]")),
        ("objects in objects", around("{\"a\":", "1", "}")),
        ("lists without an end", around("[", "", "")),
        ("a list of lists", filled("{\"a\":[", "[],", "[]]}", 1 << 20)),
        ("a list of numbers", filled("{\"a\":[", "0,", "0]}", 1 << 20)),
        ("many keys", format!("{{{keys}\"k\":1}}").into_bytes()),
        ("many columns", format!("{columns}c\n").into_bytes()),
        ("a long line", filled("{\"a\":\"", "x", "\"}\n", LONG)),
        ("a long field", filled("a,b\n1,\"", "x", "\"\n", LONG)),
        ("an open quote", filled("a,b\n1,\"", "2\n", "", 1 << 20)),
        ("rows of a letter", filled("a\n", "1\n", "", 1 << 20)),
        ("TOML: lists in lists", [b"a = ".to_vec(), around("[", "1", "]")].concat()),
        ("TOML: tables in tables", [b"a = ".to_vec(), around("{a=", "1", "}")].concat()),
        ("TOML: a dotted key", dotted.into_bytes()),
        ("TOML: a dotted section", format!("[a{}]\n", ".a".repeat(MANY)).into_bytes()),
        ("TOML: many sections", filled("", "[[a]]\n", "", 600_000)),
        ("signs", around("-", "1", "")),
        ("brackets", around("(", "1", ")")),
        ("a template of signs", [b"{{ ".to_vec(), around("-", "x", ""), b" }}".to_vec()].concat()),
        ("a template of brackets", [b"{{ ".to_vec(), around("(", "x", ")"), b" }}".to_vec()].concat()),
        ("a template of sums", [b"{{ x".to_vec(), around("+x", "", ""), b" }}".to_vec()].concat()),
        ("a template of branches", around("{% if x %}", "", "{% endif %}")),
        (
            "a template that doubles",
            b"{% set a = namespace(x=x) %}{% for i in range(99) %}{% set a.x = a.x ~ a.x %}{% endfor %}{{ a.x }}"
                .to_vec(),
        ),
        (
            "a template that compares all with all",
            b"{% set l = range(30000) | list %}{{ l | select('in', l) | list | length }}".to_vec(),
        ),
        ("a template that indents", b"{{ x | indent(10**9) }}".to_vec()),
        ("a template that pads", b"{{ '%999999999d' | format(1) }}{{ x * 10**9 }}".to_vec()),
        ("LaTeX: braces", around("{", "1", "}")),
        ("LaTeX: roots", [b"\\boxed{".to_vec(), around("\\sqrt{", "1", "}"), b"}".to_vec()].concat()),
    ]
}
