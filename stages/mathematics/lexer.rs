//! Splits LaTeX into tokens: the longest word that matches wins.
//!
//! Knows the words and which of them are skipped, but not their order. A character that begins no word is an error
//! (`None`) of the whole text.

use std::sync::LazyLock;

use regex::Regex;

use crate::patterns::pattern;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Digits, perhaps with a point.
    Number(String),
    /// The same with a percent sign behind it.
    Percent(String),
    /// `2E5`.
    Scientific(String),
    /// A letter, a Greek letter or a symbol; in lower case, without backslash.
    Symbol(String),
    /// `\text{…}` and its like: the command and what is inside.
    Accent(String, String),
    /// `d` and a letter: a differential, or two letters of a word.
    Differential(String),
    /// The letter I, alone: the imaginary unit.
    Imaginary,
    Euler,
    /// A sign, named by one of its spellings.
    Sign(&'static str),
    /// A function's command.
    Function(&'static str),
}

pub(super) fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut rest = text;
    let mut tokens = Vec::new();
    while !rest.is_empty() {
        let (token, length) = longest(rest)?;
        tokens.extend(token);
        rest = &rest[length..];
    }
    Some(tokens)
}

/// The name of a Greek letter, or of any one symbol by its command.
pub(super) fn letter(text: &str) -> Option<String> {
    match longest(text)? {
        (Some(Token::Symbol(name)), length) if length == text.len() => Some(name),
        _ => text.strip_prefix('\\').map(str::to_owned),
    }
}

/// The longest spelling that begins the text; of equally long ones, the first.
fn longest(text: &str) -> Option<(Option<Token>, usize)> {
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
        pattern(
            r"^(?:(?P<percent>(\d*\.\d+|\d+)[ \t\r\n]?\\?%)|(?P<power>(?:\d*\.\d+|\d+)E[-+−∸∔⊕⊞]?\d+)|(?P<plain>\d*\.\d+|\d+))",
        )
    });
    static ACCENT: LazyLock<Regex> = LazyLock::new(|| {
        pattern(
            r"(?s)^\\(acute|bar|overline|breve|check|widecheck|dot|ddot|grave|hat|tilde|widetilde|vec|overrightarrow|bm|boldsymbol|text|textit|textbf|textnormal|mbox|math(?:bb|bin|bf|cal|clap|close|ellipsis|frak|inner|it|normal|op|open|ord|punct|rel|ring|rlap|rm|scr|sf|sterling|tt))\s?\{((?:\\\}|[^}])*?)\}",
        )
    });
    static ARRAY: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\\begin\{array\}\{[lcr]*\}"));
    static DIFFERENTIAL: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"^d[ \t\r\n]*([a-zA-Z]|\\[a-zA-Z]+)"));
    if let Some(found) = NUMBER.captures(text) {
        let length = found.get(0)?.len();
        let digits = |text: &str| text.replace([' ', '\t', '\r', '\n', '%', '\\'], "");
        let token = match (found.name("percent"), found.name("power"), found.name("plain")) {
            (Some(number), _, _) => Token::Percent(digits(number.as_str())),
            (_, Some(number), _) => Token::Scientific(number.as_str().replace(['−', '∸'], "-")),
            (_, _, Some(number)) => Token::Number(number.as_str().to_owned()),
            _ => return None,
        };
        return Some((Some(token), length));
    }
    let word = WORDS.iter().find(|(spelling, _)| text.starts_with(spelling));
    let word = word.map(|(spelling, token)| (token.clone(), spelling.len()));
    let accent = ACCENT.captures(text).map(|found| {
        let token = Token::Accent(found[1].to_owned(), found[2].to_owned());
        (Some(token), found[0].len())
    });
    let array = ARRAY.find(text).map(|found| (Some(Token::Sign("begin matrix")), found.len()));
    let differential = DIFFERENTIAL.captures(text).map(|found| {
        let letter = found[1].trim_start_matches('\\').to_owned();
        (Some(Token::Differential(letter)), found[0].len())
    });
    let letter = text.chars().next().filter(char::is_ascii_alphabetic).map(|letter| {
        let token = match letter {
            'e' => Token::Euler,
            'I' => Token::Imaginary,
            letter => Token::Symbol(letter.to_ascii_lowercase().to_string()),
        };
        (Some(token), 1)
    });
    let found = [word, accent, array, differential, letter].into_iter().flatten();
    found.reduce(|best, next| if next.1 > best.1 { next } else { best })
}

/// Every spelling with its token, longest first; `None` is skipped.
static WORDS: LazyLock<Vec<(String, Option<Token>)>> = LazyLock::new(|| {
    let mut words: Vec<(String, Option<Token>)> = Vec::new();
    let spaces = [" ", "\t", "\r", "\n"].into_iter();
    words.extend(SKIPPED.split(' ').chain(spaces).map(|skipped| (skipped.to_owned(), None)));
    for line in SIGNS {
        let mut spellings = line.split(' ');
        let sign = Some(Token::Sign(spellings.next().unwrap_or_default()));
        words.extend(spellings.map(|spelling| (spelling.to_owned(), sign.clone())));
    }
    words.extend(PLAIN.split(' ').map(|name| (name.to_owned(), Some(Token::Sign(name)))));
    words.extend(COMMANDS.split(' ').map(|name| (format!("\\{name}"), Some(Token::Sign(name)))));
    let function = |name| (format!("\\{name}"), Some(Token::Function(name)));
    words.extend(FUNCTIONS.split(' ').map(function));
    // Names of functions and matrices that are words by themselves: no letters, so no product.
    let reserved = Some(Token::Sign("reserved"));
    words.extend(RESERVED.split(' ').map(|name| (name.to_owned(), reserved.clone())));
    for (spelling, name) in GREEK.split_whitespace().filter_map(|pair| pair.split_once(':')) {
        for spelling in [format!("\\{name}"), spelling.to_owned()] {
            words.push((spelling, Some(Token::Symbol(name.to_lowercase()))));
        }
    }
    let symbol = |name: &str| (format!("\\{name}"), Some(Token::Symbol(name.to_lowercase())));
    words.extend(SYMBOLS.split(' ').map(symbol));
    for kind in ["matrix", "pmatrix", "bmatrix"] {
        words.push((format!("\\begin{{{kind}}}"), Some(Token::Sign("begin matrix"))));
        words.push((format!("\\end{{{kind}}}"), Some(Token::Sign("end matrix"))));
    }
    words.push(("\\end{array}".to_owned(), Some(Token::Sign("end matrix"))));
    words.push(("\\begin{vmatrix}".to_owned(), Some(Token::Sign("begin det"))));
    words.push(("\\end{vmatrix}".to_owned(), Some(Token::Sign("end det"))));
    words.sort_by_key(|(spelling, _)| std::cmp::Reverse(spelling.chars().count()));
    words
});

const SKIPPED: &str = r"\, \thinspace \: \medspace \; \thickspace \quad \qquad \! \negthinspace \negmedspace \negthickspace \$ \vrule \vcenter \vbox \vskip \vspace \hfil";

/// Name, then spellings.
const SIGNS: &[&str] = &[
    "+ + ∔ ⊕ ⊞",
    "- - − ∸",
    "* * × ⋅ ⋄ ⊡ ∗ ⋆ ∘ ∙ ⊗ ⊠ ⋈ ⋉ ⋊ \\times \\cdot",
    "/ / ÷ ∕ \\over \\div :",
    "[ [ \\lbrack",
    "] ] \\rbrack",
    "boxed \\boxed \\phantom",
    "| | \\vert",
    "norm \\|",
    "lfloor \\lfloor \\llcorner",
    "rfloor \\rfloor \\lrcorner",
    "lceil \\lceil \\ulcorner",
    "rceil \\rceil \\urcorner",
    "frac \\frac \\dfrac \\tfrac \\cfrac",
    "binom \\binom \\tbinom \\dbinom",
    "= = ≡ ≣ ≟ ≎ ≏ ≐ ≑ ≒ ≓ ≔ ≕ ≖ ≗ == \\equiv",
    "approx ~= ≈ ≊ ≋ ≃ ≅ \\approx",
    "< < ≪ ≺ ⋖ \\lt",
    "<= \\leq \\le \\leqslant ≤ ≦ ≲ ≾ <=",
    "> > ≫ ≻ ⋗ \\gt",
    ">= \\geq \\ge \\geqslant ≥ ≧ ≳ ≿ >=",
    "!= != !== \\ne \\neq \\not\\equiv ≠ ≁ ≄ ≇ ≉ ≢",
    "infinity \\infty \\infty\\% \\infty%",
    "N \\mathbb{N} ℕ",
    "Z \\mathbb{Z} ℤ",
    "Q \\mathbb{Q} ℚ",
    "R \\mathbb{R} ℝ",
    "C \\mathbb{C} ℂ",
    "empty \\emptyset ∅ \\{\\} \\lbrace\\rbrace",
    "union \\cup ∪",
    "intersection \\cap ∩",
    "without \\setminus ∖",
    "pm \\pm ± ∓ \\mp",
    "degree ^\\circ ^\\degree ^\\circle ^° ^{\\circ} ^{\\degree} ^{\\circle} ^{°}",
    "to \\to \\rightarrow \\Rightarrow \\longrightarrow \\Longrightarrow",
    "unsupported \\partial \\subseteq \\supseteq ⊆ ⊇ \\notin ∉ \\langle \\rangle",
    "transpose ^T ^{T} '",
];

/// Signs that are spelled as they are named.
const PLAIN: &str = r"( ) \( \) { } \{ \} & \\ _ ^ ; , ! E";

/// Signs that are spelled by the command of that name.
const COMMANDS: &str =
    "mod lgroup rgroup lbrace rbrace lvert rvert choose operatorname in int sum prod lim";

const FUNCTIONS: &str = "log ln exp sin cos tan csc sec cot arcsin arccos arctan arccsc arcsec arccot sinh cosh tanh arsinh arcosh artanh arcsinh arccosh arctanh sqrt gcd lcm floor ceil max min det";

const RESERVED: &str = "arsinh arcsinh arcosh arccosh artanh arctanh gcd lcm floor ceil eye zeros ones cols rows diag norm rank trace tr rref hstack vstack orth ortho orthogonal orthogonalize nullspace eig eigen diagonalize eigenvals eigenvalues eigenvects eigenvectors svd SVD matrix pmatrix bmatrix vmatrix";

const GREEK: &str = "α:alpha β:beta γ:gamma Γ:Gamma δ:delta Δ:Delta ε:epsilon ϵ:varepsilon ζ:zeta η:eta θ:theta Θ:Theta ϑ:vartheta ι:iota κ:kappa λ:lambda Λ:Lambda μ:mu ν:nu ξ:xi Ξ:Xi ο:omicron π:pi Π:Pi ϖ:varpi ρ:rho ϱ:varrho σ:sigma Σ:Sigma ς:varsigma τ:tau υ:upsilon Υ:Upsilon φ:phi Φ:Phi ϕ:varphi χ:chi ψ:psi Ψ:Psi ω:omega Ω:Omega";

const SYMBOLS: &str = "Bbbk wp nabla bigstar angle nexists diagdown measuredangle eth diagup sphericalangle clubsuit varnothing Diamond complement diamondsuit imath Finv triangledown heartsuit jmath Game triangle spadesuit ell hbar vartriangle hslash blacklozenge lozenge blacksquare mho blacktriangle sharp prime Im flat square backprime Re natural surd circledS";
