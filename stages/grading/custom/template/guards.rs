//! Wraps minijinja's filters, tests and functions. Each runs unchanged, after the rendering was charged for its
//! work: the bytes that it makes, and its comparisons, whose number may be a product of two sizes.
//!
//! A filter or test of the crate that is not named here fails `every_filter_and_test_is_bounded`.

use minijinja::value::{Kwargs, Rest, ValueKind, from_args};
use minijinja::{Environment, Error, State, Value, filters, tests};

use super::limits::{
    DEEPEST, LONGEST, LOOK, NULL, WEIGHT, WORK, Work, look, made, not_null, refuse, seen, too_long,
    weight,
};

/// Filters that write their arguments as text. They refuse null, alone or in a list.
const WRITES: &str =
    "capitalize e escape format indent join lower pprint replace safe string title trim upper";

/// Bytes that a filter makes beyond a few times those of its arguments.
fn surplus(name: &str, args: &[Value]) -> Result<u64, Error> {
    let (positional, kwargs): (&[Value], Kwargs) = from_args(args)?;
    let text = |place: usize| positional.get(place).and_then(Value::as_str);
    let number = |place: usize, key: &str| {
        let named = || kwargs.get::<Option<Value>>(key).ok().flatten();
        let value = positional.get(place).cloned().or_else(named);
        value.and_then(|value| value.as_usize()).map(|number| number as u64)
    };
    let times = |one: u64, other: u64| Ok(one.saturating_mul(other));
    match name {
        "replace" => match (text(0), text(1), text(2)) {
            (Some(text), Some(from), Some(to)) => {
                times(text.matches(from).count() as u64, to.len() as u64)
            }
            // A value of another kind is written first; it has no more places than bytes.
            _ => times(weight_of(positional.first())?, weight_of(positional.get(2))?),
        },
        "join" => {
            let parts = match (text(0), positional.first()) {
                (Some(text), _) => text.len() as u64,
                (None, Some(list)) => list.try_iter()?.count() as u64,
                (None, None) => 0,
            };
            times(parts, weight_of(positional.get(1))?)
        }
        "indent" => {
            let lines = text(0).map_or(1, |text| text.matches('\n').count() as u64 + 1);
            times(lines, number(1, "width").unwrap_or(4))
        }
        "batch" | "slice" => {
            times(number(1, "count").unwrap_or(1), WEIGHT + weight_of(positional.get(2))?)
        }
        "format" => {
            let pattern = text(0).unwrap_or_default();
            let fields = pattern.matches('%').count() as u64;
            let width = |digits: &str| match digits {
                "" => 0,
                // A width of more digits than a number holds is invalid, and never short.
                digits => digits.parse().unwrap_or(u64::MAX),
            };
            let written = pattern.split(|c: char| !c.is_ascii_digit()).map(width);
            let numbers = positional.iter().skip(1).filter_map(Value::as_usize);
            let given = numbers.filter(|_| pattern.contains('*')).map(|number| number as u64);
            let widest = written.chain(given).max().unwrap_or(0);
            times(fields, sum(args.get(1..).unwrap_or_default(), LONGEST)?.saturating_add(widest))
        }
        // Four blanks for every list around a line.
        "pprint" => times(weight_of(positional.first())?, 4 * DEEPEST as u64),
        _ => Ok(0),
    }
}

/// The total weight of arguments, each at most `most`.
fn sum(args: &[Value], most: u64) -> Result<u64, Error> {
    args.iter().try_fold(0, |sum: u64, argument| Ok(sum.saturating_add(weight(argument, most)?)))
}

fn weight_of(value: Option<&Value>) -> Result<u64, Error> {
    value.map_or(Ok(0), |value| weight(value, LONGEST))
}

/// The cost of a filter for the pairs that it compares or walks, in bytes handled.
fn pairs(name: &str, args: &[Value], sum: u64) -> Result<u64, Error> {
    let (positional, kwargs): (&[Value], Kwargs) = from_args(args)?;
    let count = |value: &Value| value.try_iter().map_or(0, |parts| parts.count() as u64);
    let all = positional.first().map_or(0, count);
    // An attribute is looked up dot by dot, and a sort takes several attributes, separated by commas.
    let path = |place: usize| {
        let named = || kwargs.get::<Option<Value>>("attribute").ok().flatten();
        let path = positional.get(place).cloned().or_else(named);
        let steps = |path: &str| path.matches(['.', ',']).count() as u64 + 1;
        path.map_or(0, |path| path.as_str().map_or(1, steps)) * WEIGHT
    };
    let turns = u64::from(all.checked_ilog2().unwrap_or(0)) + 1;
    Ok(match name {
        "sort" | "dictsort" | "unique" => {
            (look(sum) + all * path(usize::MAX)).saturating_mul(turns)
        }
        "groupby" => (look(sum) + all * path(1)).saturating_mul(turns),
        "selectattr" | "rejectattr" => all.saturating_mul(path(1)),
        "map" => all.saturating_mul(path(usize::MAX)),
        "trim" => look(sum).saturating_mul(weight_of(positional.get(1))?),
        // A key, or a place, is searched in one argument after the other.
        "chain" => {
            let parts: u64 = positional.iter().map(count).sum();
            look(WEIGHT).saturating_mul(parts).saturating_mul(positional.len() as u64)
        }
        _ => 0,
    })
}

/// Calls a filter of the crate within its bounds.
fn guarded(
    name: &str,
    filter: &Value,
    state: &State<'_, '_>,
    args: &[Value],
) -> Result<Value, Error> {
    let takes_null = matches!(name, "default" | "d");
    if !takes_null && args.first().is_some_and(Value::is_none) {
        return Err(refuse(NULL));
    }
    let sum = WEIGHT + sum(args, LONGEST)?;
    let surplus = surplus(name, args)?;
    if surplus > LONGEST {
        return Err(too_long(LONGEST));
    }
    if WRITES.split(' ').any(|writes| writes == name) {
        args.iter().try_for_each(not_null)?;
    }
    let pairs = pairs(name, args, sum)?;
    Work::of(state).charge(sum.saturating_add(surplus).saturating_add(pairs))?;
    let value = filter.call(state, args)?;
    // A loop could nest lists that only refer to others ever deeper.
    let value = match (name, value.kind()) {
        ("chain", ValueKind::Seq) => Value::from(value.try_iter()?.collect::<Vec<_>>()),
        ("chain", ValueKind::Map) => {
            let pair = |key: Value| Ok::<_, Error>((key.clone(), value.get_item(&key)?));
            value.try_iter()?.map(pair).collect::<Result<Vec<_>, _>>()?.into_iter().collect()
        }
        _ => value,
    };
    made(state, value)
}

/// Calls a test of the crate, and charges a look at its arguments.
fn tested(name: &str, test: &Value, state: &State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    Work::of(state).charge(look(WEIGHT + sum(args, WORK * LOOK)?))?;
    // The crate panics if it cannot divide.
    if let ("divisibleby", [number, by]) = (name, args)
        && let (Ok(number), Ok(by)) = (i128::try_from(number.clone()), i128::try_from(by.clone()))
        && number.checked_rem(by).is_none()
    {
        return Err(refuse(format!("unable to divide {number} by {by}")));
    }
    test.call(state, args)
}

macro_rules! filters {
    ($environment:ident, $filter:ident as $name:ident) => {
        let filter = Value::from_function(filters::$filter);
        let name = stringify!($name);
        $environment.add_filter(name, move |state: &State<'_, '_>, args: Rest<Value>| {
            guarded(name, &filter, state, &args)
        });
    };
    ($environment:ident, $($name:ident)+) => {
        $(filters!($environment, $name as $name);)+
    };
}

macro_rules! tests {
    ($environment:ident, $($test:ident: $($name:literal)+,)+) => {
        $($(
            let test = Value::from_function(tests::$test);
            $environment.add_test($name, move |state: &State<'_, '_>, args: Rest<Value>| {
                tested($name, &test, state, &args)
            });
        )+)+
    };
}

/// Wraps every filter, test and function of the crate in its bounds, and removes those that show the environment.
pub(super) fn set(environment: &mut Environment<'_>) {
    environment.remove_global("debug");
    let functions = environment.globals().map(|(name, function)| (name.to_owned(), function));
    for (name, function) in functions.collect::<Vec<_>>() {
        environment.add_function(name, move |state: &State<'_, '_>, args: Rest<Value>| {
            seen(state, function.call(state, &args)?)
        });
    }
    filters!(environment, escape as e);
    filters!(environment, length as count);
    filters!(environment, default as d);
    filters!(environment, safe escape lower upper title capitalize replace length dictsort items reverse trim);
    filters!(environment, join split lines default round abs int float attr first last min max sort list string);
    filters!(environment, bool batch slice sum indent select reject selectattr rejectattr map groupby unique);
    filters!(environment, chain zip pprint format);
    tests! { environment,
        is_undefined: "undefined", is_defined: "defined", is_none: "none", is_safe: "safe" "escaped",
        is_boolean: "boolean", is_odd: "odd", is_even: "even", is_divisibleby: "divisibleby",
        is_number: "number", is_integer: "integer" "int", is_float: "float", is_string: "string",
        is_sequence: "sequence", is_iterable: "iterable", is_mapping: "mapping",
        is_startingwith: "startingwith", is_endingwith: "endingwith", is_lower: "lower", is_upper: "upper",
        is_sameas: "sameas", is_eq: "eq" "equalto" "==", is_ne: "ne" "!=", is_lt: "lt" "lessthan" "<",
        is_le: "le" "<=", is_gt: "gt" "greaterthan" ">", is_ge: "ge" ">=", is_in: "in",
        is_true: "true", is_false: "false", is_filter: "filter", is_test: "test",
    }
}
