//! Normalises LaTeX: opens boxes, unites text commands, drops units, completes sloppy fractions and roots.
//!
//! Rules on strings, in a fixed order that is part of the result. Does not read structure, which `grammar` does.

use std::sync::LazyLock;

use fancy_regex::{Captures, Regex, Replacer};

use crate::braces::{braced_fractions, braced_roots, closing, fraction};
use crate::patterns::backtracking;

/// Which boxes of a text are its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Boxes {
    /// All of them, with commas between.
    All,
    /// The last, and those before it that seem to belong to it.
    Last,
}

pub(super) fn normalise(text: &str, boxes: Boxes) -> String {
    let text = plain(&unboxed(text, boxes));
    let mut text = without_units(text);
    if text.starts_with('.') {
        text.insert(0, '0');
    }
    if text == "0.5" {
        "\\frac{1}{2}".clone_into(&mut text);
    }
    crate::python::strip(&mended(text)).to_owned()
}

struct Rules(Vec<(Regex, &'static str)>);

impl Rules {
    fn new(rules: &[(&str, &'static str)]) -> Self {
        Self(rules.iter().map(|(pattern, with)| (backtracking(pattern), *with)).collect())
    }

    /// Each rule on the whole text, one after the other.
    fn apply(&self, text: String) -> String {
        self.0.iter().fold(text, |text, (pattern, with)| replaced(pattern, text, *with))
    }
}

/// All matches replaced; a text that exceeds the backtracking limit stays as it is.
fn replaced(pattern: &Regex, text: String, with: impl Replacer) -> String {
    match pattern.try_replacen(&text, 0, with) {
        Ok(replaced) => replaced.into_owned(),
        Err(_) => text,
    }
}

/// Commands that only format are dropped or united.
fn plain(text: &str) -> String {
    static DELIMITERS: LazyLock<Rules> = LazyLock::new(|| {
        Rules::new(&[
            (
                r"\\m?left(\\\{|\{|\\\||\||\[|\(|\\rbracl|\\lgroup|\\lbrace|\\lbrack|\\vert|\\lvert|\\lceil|\\lfloor|\\langle|\\llcorner|\\ulcorner)",
                "$1",
            ),
            (
                r"\\m?right(\\\}|\}|\\\||\||\]|\)|\\rbrack|\\rgroup|\\rbrace|\\vert|\\rvert|\\rceil|\\rfloor|\\rangle|\\lrcorner|\\urcorner)",
                "$1",
            ),
            // Permutations of k out of n.
            (
                r"\(([a-zA-Z0-9+\-*/\\ ]+?)\)_\{([a-zA-Z0-9+\-*/\\ ]+?)\}",
                r"\frac{($1)!}{(($1)-($2))!}",
            ),
            (r#"\\mathrm\{th\}|\\!\s*|\\text\s*\{\s*\}|\\\$|\$|(?<!\\)["']|\\displaystyle"#, ""),
        ])
    });
    // A single pass, so that no rule reads what another one wrote.
    const UNITED: [(&str, &str); 18] = [
        (r"\\math(?:rm|it|bf)", r"\text"),
        (r"\\text(?:normal|bf|it|rm)", r"\text"),
        (r"\\[dtc]frac", r"\frac"),
        (r"\s\.", " 0."),
        (r"\{\.", "{0."),
        (r"~=", r"\approx"),
        (r"\s*\{\s*,\s*\}", ","),
        (r"(?<![a-zA-Z]),?\s*(?:and|or)(?![a-zA-Z])", ","),
        (r",?\s*\\text\{\s*(?:and|or)\s*\}", ","),
        (r"(?<!\\)\\\s", " "),
        (r"infinity", r"\infty"),
        (r",?\\ldots", " "),
        (r"\s*percentage|\\text\{percentage\}", r"\%"),
        (r"\s*percent|\\text\{percent\}", r"\%"),
        (r"\s*pct", r"\%"),
        (r"\\text\{pct\}", r"\%"),
        (r"(?<!\\)inf(?!inity)", r"\infty"),
        (r" sqrt", r"\sqrt"),
    ];
    static UNITE: LazyLock<Regex> = LazyLock::new(|| {
        let groups: Vec<String> = UNITED.iter().map(|(rule, _)| format!("({rule})")).collect();
        backtracking(&groups.join("|"))
    });
    static DOUBLED: LazyLock<Regex> = LazyLock::new(|| backtracking(r"\\\\(?=[a-zA-Z])"));
    let text = text
        .replace("\\mathrm{T}", "T")
        .replace("\\mathrm{d}", "d")
        .replace("{\\rm d}", "d")
        .replace("\\left[\\begin{matrix}", "\\begin{bmatrix}")
        .replace("\\end{matrix}\\right]", "\\end{bmatrix}");
    let text = DELIMITERS.apply(text);
    let text = replaced(&UNITE, text, |captures: &Captures<'_>| {
        let rule = (1..=UNITED.len()).find(|group| captures.get(*group).is_some());
        rule.map_or("", |group| UNITED[group - 1].1).to_owned()
    });
    let text = text.replace(['\n', '\t'], " ");
    if text.contains("matrix") { text } else { replaced(&DOUBLED, text, "\\") }
}

/// A text at the end, then twice a unit behind a digit, a brace or a space; never the whole answer.
fn without_units(text: String) -> String {
    static TEXT: LazyLock<Regex> =
        LazyLock::new(|| backtracking(r"\\(?:text|mbox)\{.*?\}(?:\^\d|\{\^\d\})?$"));
    static UNIT: LazyLock<Regex> = LazyLock::new(|| {
        backtracking(&format!(r"(\d|\}}|\s)\s*(?:{})(?:s|es)?\s*$", UNITS.replace(',', "|")))
    });
    let shorter = crate::python::strip(&replaced(&TEXT, text.clone(), "")).to_owned();
    let mut text = if shorter.is_empty() { text } else { shorter };
    for _ in 0..2 {
        let shorter = replaced(&UNIT, text.clone(), "$1");
        if !shorter.is_empty() {
            text = shorter;
        }
    }
    text
}

/// Words that count as units at the end of an answer.
const UNITS: &str = "integerpoint,feet,sue,digit,pound,meal,edge,student,children ticket,multiple,east,degree,\
mph,kmph,ft,m square, m east,sq m,deg,mile,q .,monkey,prime,ratio,profit of rs,rd,o,gm,p . m,lb,tile,per,dm,\
lt,gain,ab,way,west,a .,b .,c .,d .,e .,f .,g .,h .,t,h,no change,men,soldier,pie,bc,excess,st,inches,noon,\
cent,by,gal,kmh,c,acre,rise,a . m,th,π r 2,sq,mark,l,toy,coin,sq . m,gallon,° f,profit,minw,yr,women,am,pm,\
hr,cu cm,square,v â € ™,are,rupee,rounds,cubic,cc,mtr,s,ohm,number,day,hour,minute,min,second,man,woman,sec,\
cube,mt,sq inch,mp,∏ cm ³,hectare,more,unit,cu . m,cm 2,rs .,rs,kg,g,month,km,m,cm,mm,apple,liter,loss,yard,\
pure,year,increase,decrease,d,less,Surface,litre,pi sq m,s .,metre,meter,inch";

/// Adds missing braces to powers, roots and fractions.
fn mended(text: String) -> String {
    static OPERATORS: LazyLock<Rules> = LazyLock::new(|| {
        Rules::new(&[
            (r"\^\s?\((.*?)\)", "^{$1}"),
            (r"sqrt\s?\((.*?)\)", r"\sqrt{$1}"),
            (r"\\frac\s?(\d)\s?(\d+)", r"\frac{$1}{$2}"),
            (r"\\log_\s?(\d)\s?(\d+)", r"\log_{$1}{$2}"),
            (r"\\frac\s?\{(.*?)\}\s?(\d)", r"\frac{$1}{$2}"),
            (r"\\frac\s?(\d)\s?\{(.*?)\}", r"\frac{$1}{$2}"),
            (r"\\sqrt\s?(\d)", r"\sqrt{$1}"),
        ])
    });
    fn trim(piece: &str) -> &str {
        piece.trim_start_matches(crate::python::is_space)
    }
    let text = OPERATORS.apply(text).replace(" sqrt", "\\sqrt");
    let text = braced_roots(&text, trim, &['{', '[']);
    let text = match braced_fractions(&text, trim) {
        Ok(braced) => braced,
        Err(_) => text,
    };
    fraction(&text).unwrap_or(text)
}

/// The insides of the boxes of a text; the text, if it has none.
fn unboxed(text: &str, mode: Boxes) -> String {
    let mut found: Vec<&str> = Vec::new();
    let (mut end, mut behind) = (text.len(), None);
    loop {
        let boxed = text[..end].rfind("\\boxed");
        let framed = text[..end].rfind("\\fbox");
        let Some(start) = boxed.max(framed) else { break };
        let command = if boxed > framed { "\\boxed".len() } else { "\\fbox".len() };
        let gap = &text[start + command..end];
        let inside = gap.trim_start_matches(crate::python::is_space);
        if inside.is_empty() {
            break;
        }
        let open = end - inside.len();
        let Some(close) = inside.starts_with('{').then(|| closing(inside, 0)).flatten() else {
            // An open box goes on to the end, if it is the last.
            if found.is_empty() {
                found.push(&text[open..]);
            }
            break;
        };
        let content = crate::python::strip(&inside[1..close]);
        if let (Boxes::Last, Some(behind), Some(last)) = (mode, behind, found.last())
            && !belong(&text[open + close + 1..behind], content, last)
        {
            break;
        }
        found.push(content);
        behind = Some(start);
        end = start;
    }
    if found.is_empty() {
        return text.to_owned();
    }
    found.reverse();
    found.join(",")
}

/// Whether two boxes with this text between them are one answer.
fn belong(between: &str, content: &str, next: &str) -> bool {
    let length = between.chars().count();
    let separated = ["and", "or", ",", ";"].iter().any(|separator| between.contains(separator));
    length < 10 || (next != content && length < 70 && separated)
}
