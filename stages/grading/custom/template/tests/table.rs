//! Calls every filter, test and function of the crate with the largest arguments of a row, and with smaller ones again
//! and again. Each call ends or is refused; one without a bound would take hours. The table names them all, so that a
//! new one fails until it is listed here.

use std::collections::BTreeSet;

use super::*;

/// Each name with its worst use. `l` are numbers, `w` words, `d` rows of a table, `m` a map, `s` a text.
#[rustfmt::skip]
const FILTERS: &[(&str, &str)] = &[
    ("abs", "l | map('abs')"), ("attr", "d | attr(7000)"), ("batch", "l | batch(2)"), ("bool", "l | bool"),
    ("capitalize", "s | capitalize"), ("chain", "m | chain(*d)"), ("count", "l | count"), ("d", "nothing | d(l)"),
    ("default", "nothing | default(l)"), ("dictsort", "m | dictsort(by='value')"), ("e", "s | e"),
    ("escape", "l | escape"), ("first", "l | reverse | first"), ("float", "l | map('float')"),
    ("format", "('%s' * 300) | format(*w[:300])"), ("groupby", "d | groupby(dots)"), ("indent", "lines | indent(3)"),
    ("int", "l | map('int')"), ("items", "m | items"), ("join", "w | join(',')"), ("last", "l | last"),
    ("length", "l | length"), ("lines", "lines | lines"), ("list", "s[:9999] | list"), ("lower", "s | lower"),
    ("map", "d | map(attribute=dots, default=0)"), ("max", "w | max"), ("min", "w | min"), ("pprint", "l[:99] | pprint"),
    ("reject", "l | reject('in', l)"), ("rejectattr", "d | rejectattr('k', 'in', l)"), ("replace", "s | replace('ab', '')"),
    ("reverse", "l | reverse"), ("round", "l | map('round')"), ("safe", "s | safe"), ("select", "l | select('in', l)"),
    ("selectattr", "d | selectattr('k', 'in', l)"), ("slice", "l | slice(999)"), ("sort", "d | sort(attribute='k' ~ ',k' * 9999)"),
    ("split", "s[:9999] | split('a', 9999)"), ("string", "l | string"), ("sum", "l | sum"), ("title", "s | title"),
    ("trim", "('a' * 500000) | trim('b' * 300000)"), ("unique", "w | unique"), ("upper", "s | upper"), ("zip", "l | zip(l, l)"),
];

#[rustfmt::skip]
const TESTS: &[(&str, &str)] = &[
    ("!=", "l | select('!=', l)"), ("<", "l | select('<', l)"), ("<=", "l | select('<=', l)"), ("==", "l | select('==', l)"),
    (">", "l | select('>', l)"), (">=", "l | select('>=', l)"), ("boolean", "l is boolean"), ("defined", "l is defined"),
    ("divisibleby", "l | select('divisibleby', 7)"), ("endingwith", "w | select('endingwith', s)"), ("eq", "l[:] is eq(l)"),
    ("equalto", "[l, l[:]] | select('equalto', l)"), ("escaped", "s is escaped"), ("even", "l | select('even')"),
    ("false", "l is false"), ("filter", "w | select('filter')"), ("float", "l | select('float')"), ("ge", "l is ge(l[:])"),
    ("greaterthan", "l is greaterthan(l[:])"), ("gt", "l is gt(l[:])"), ("in", "w[-1] is in(w)"), ("int", "l | select('int')"),
    ("integer", "l is integer"), ("iterable", "l is iterable"), ("le", "l is le(l[:])"), ("lessthan", "l is lessthan(l[:])"),
    ("lower", "s is lower"), ("lt", "l is lt(l[:])"), ("mapping", "m is mapping"), ("ne", "m is ne(dict(m))"),
    ("none", "l is none"), ("number", "l is number"), ("odd", "l | select('odd')"), ("safe", "s is safe"),
    ("sameas", "l is sameas(l[:])"), ("sequence", "l is sequence"), ("startingwith", "w | select('startingwith', s)"),
    ("string", "s is string"), ("test", "w | select('test')"), ("true", "l is true"), ("undefined", "l is undefined"),
    ("upper", "s | upper is upper"),
];

#[rustfmt::skip]
const FUNCTIONS: &[(&str, &str)] = &[
    ("dict", "dict(dict(dict(dict(dict(dict(dict(dict(m))))))))"), ("namespace", "namespace(namespace(namespace(m)))"),
    ("range", "range(100000)[99999]"),
];

/// Operators, and filters that call them.
const OPERATORS: &[&str] = &[
    "-1 in l",
    "-1 not in range(100000)",
    "'zz' in w",
    "'b' * 999 in 'a' * 500000",
    "range(100000) == range(100000)",
    "l == l[:] == l",
    "0 < -1 in l",
    "m == dict(m)",
    "l != l[:] or l < l[:] or l > l[:]",
    "loop.changed(range(100000))",
    "s[500000]",
    "l + l",
    "l * 2",
    "w ~ w",
    "l[::-1]",
    "d | map('map', 'map', 'string')",
    "l | map('in', l)",
    "[l[:99], l[:99]] | map('select', 'in', l)",
    "l | select('in', range(100000))",
    "w | map('replace', '', s)",
    "d | sort(attribute='z')",
    "[m, m, m, m] | unique",
];

/// The longest values that a template may look at, or a part of them.
fn row(part: u32) -> Value {
    let words = |n: u32| format!("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa{n}");
    let fields = |n: u32| if n.is_multiple_of(3) { json!({"z": n % 7}) } else { json!({"k": n}) };
    json!({
        "l": (0..30_000 / part).collect::<Vec<_>>(),
        "w": (0..10_000 / part).map(words).collect::<Vec<_>>(),
        "d": (0..8000 / part).map(fields).collect::<Vec<_>>(),
        "m": (0..10_000 / part).map(|n| (words(n), json!(n))).collect::<Map<_, _>>(),
        "s": "ab".repeat(500_000 / part as usize),
        "lines": "x\n".repeat(30_000 / part as usize),
        "dots": "k.".repeat(30_000 / part as usize),
    })
}

#[test]
fn every_filter_and_test_is_bounded() {
    let plain = format!("{:?}", Environment::new());
    let named = |kind: &str| -> BTreeSet<String> {
        let (_, rest) = plain.split_once(kind).unwrap();
        let (all, _) = rest.split_once(']').unwrap();
        let names = all.split(", ").map(|name| name.trim_matches('"'));
        names.map(str::to_owned).collect()
    };
    let table = |table: &[(&str, &str)]| -> BTreeSet<String> {
        table.iter().map(|(name, _)| (*name).to_owned()).collect()
    };
    assert_eq!(table(FILTERS), named("filters: ["));
    assert_eq!(table(TESTS), named("tests: ["));
    let functions: BTreeSet<_> =
        Environment::new().globals().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(&table(FUNCTIONS) | &BTreeSet::from(["debug".to_owned()]), functions);
    let (whole, part) = (row(1), row(10));
    let worst = |table: &[(&str, &'static str)]| -> Vec<_> {
        table.iter().map(|(_, worst)| *worst).collect()
    };
    let repeated = [worst(FILTERS), worst(FUNCTIONS), OPERATORS.to_vec()].concat();
    // These templates write nothing, so a rendering that ends is empty.
    let ends = |source: String, row: &Value| match rendered(&source, row) {
        Ok(text) => assert_eq!(text, "", "{source}"),
        Err(refused) => assert!(!refused.contains('\n'), "{source}: {refused}"),
    };
    for expression in repeated.iter().chain(&worst(TESTS)) {
        ends(format!("{{% set y = ({expression}) %}}"), &whole);
    }
    for expression in repeated {
        let again = "{% for i in range(99999) %}{% set y = (EXPRESSION) %}{% endfor %}";
        ends(again.replace("EXPRESSION", expression), &part);
    }
}
