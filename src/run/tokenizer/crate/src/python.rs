//! Filters, tests and methods that Jinja or Python has and minijinja lacks or does otherwise.

use minijinja::value::{from_args, ArgType, Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, State};

use crate::expression::{ATTRIBUTE, ITEM, PERCENT};
use crate::failure::type_error;
use crate::json;
use crate::method::{attribute, item};
use crate::percent::percent;
use crate::source::LOOP_FILTER;

pub fn install(environment: &mut Environment<'_>) {
    environment.set_unknown_method_callback(method);
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("indent", indent);
    environment.add_filter("trim", trim);
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter("list", list);
    environment.add_filter(LOOP_FILTER, iterable);
    environment.add_function(PERCENT, percent);
    environment.add_function(ATTRIBUTE, attribute);
    environment.add_function(ITEM, item);
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_iterable);
    environment.add_test("callable", is_callable);
    environment.add_function("cycler", minijinja_contrib::globals::cycler);
    environment.add_function("joiner", minijinja_contrib::globals::joiner);
    environment.set_formatter(|out, state, value| {
        if value.kind() == ValueKind::Number && !value.is_integer() {
            if let Ok(x) = f64::try_from(value.clone()) {
                return out.write_str(&json::float(x)).map_err(Error::from);
            }
        }
        minijinja::escape_formatter(out, state, value)
    });
}

// ---- filters ----

/// What Python can loop over, unchanged.
fn iterable(value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::None => Err(type_error("'NoneType' object is not iterable")),
        ValueKind::Plain => Err(type_error("a method, or a function, is not iterable")),
        _ => Ok(value),
    }
}

fn list(value: Value) -> Result<Value, Error> {
    let items: Result<Vec<Value>, Error> = iterable(value)?.try_iter()?.checked().collect();
    Ok(Value::from(items?))
}

fn length(value: &Value) -> Result<usize, Error> {
    match (value.kind(), value.len()) {
        (ValueKind::Undefined, _) => Ok(0),
        (_, Some(length)) => Ok(length),
        (ValueKind::Iterable, None) => Ok(value.try_iter()?.count()),
        (kind, None) => Err(type_error(format!("object of type {kind} has no len()"))),
    }
}

/// A parameter that tells None from nothing given.
struct Given(Option<Value>);

impl<'a> ArgType<'a> for Given {
    type Output = Given;
    fn from_value(value: Option<&'a Value>) -> Result<Given, Error> {
        Ok(Given(value.cloned()))
    }
}

fn default(
    value: &Value,
    other: Given,
    boolean: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let other = match other.0 {
        Some(other) => other,
        None if kwargs.has("default_value") => kwargs.get("default_value")?,
        None => Value::from(""),
    };
    let boolean = boolean.or(kwargs.get("boolean")?);
    kwargs.assert_all_used()?;
    let falsy = boolean.is_some_and(|boolean| boolean.is_true()) && !value.is_true();
    Ok(if value.is_undefined() || falsy { other } else { value.clone() })
}

fn trim(value: &Value, chars: Option<Value>) -> Result<Value, Error> {
    let text = value.to_string();
    let chars = chars.filter(|chars| !chars.is_none());
    Ok(Value::from(match chars.as_ref().map(|chars| chars.as_str()) {
        None => text.trim(),
        Some(Some(chars)) => text.trim_matches(|c| chars.contains(c)),
        Some(None) => return Err(type_error("strip arg must be None or str")),
    }))
}

/// str.splitlines breaks at more than \n, but templates have no others.
fn indent(
    value: &Value,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let width = match width {
        Some(width) => width,
        None => kwargs.get::<Option<Value>>("width")?.unwrap_or_else(|| Value::from(4)),
    };
    let first = first.or(kwargs.get("first")?).unwrap_or(false);
    let blank = blank.or(kwargs.get("blank")?).unwrap_or(false);
    kwargs.assert_all_used()?;
    let by = match width.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(i64::try_from(width)?.clamp(0, 1 << 20) as usize),
    };
    let mut out = String::new();
    for (at, line) in value.to_string().split('\n').enumerate() {
        if at > 0 {
            out.push('\n');
        }
        if if at == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(&by);
        }
        out.push_str(line);
    }
    Ok(Value::from(out))
}

// ---- tests ----

fn is_sequence(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::Undefined
            | ValueKind::String
            | ValueKind::Bytes
            | ValueKind::Seq
            | ValueKind::Iterable
            | ValueKind::Map
    )
}

fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

fn is_callable(value: &Value) -> bool {
    value.kind() == ValueKind::Plain
}

// ---- methods ----

fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let found = match value.kind() {
        ValueKind::String => string_method(value.as_str().unwrap_or_default(), name, args)?,
        ValueKind::Map if name == "copy" => {
            let () = from_args(args)?;
            Some(value.clone())
        }
        ValueKind::Seq => list_method(value, name, args)?,
        _ => None,
    };
    match found {
        Some(found) => Ok(found),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}

fn list_method(value: &Value, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    match name {
        "copy" => {
            let () = from_args(args)?;
            Ok(Some(value.clone()))
        }
        "index" => {
            let (what,): (&Value,) = from_args(args)?;
            let place = value.try_iter()?.position(|item| item == *what);
            place
                .map(|place| Some(Value::from(place)))
                .ok_or_else(|| type_error(format!("{what} is not in list")))
        }
        _ => Ok(None),
    }
}

fn string_method(text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let one = || -> Result<&str, Error> {
        let (argument,): (&str,) = from_args(args)?;
        Ok(argument)
    };
    Ok(Some(match name {
        "split" => split(text, args, false)?,
        "rsplit" => split(text, args, true)?,
        "partition" => partition(text, text.find(one()?), one()?, false)?,
        "rpartition" => partition(text, text.rfind(one()?), one()?, true)?,
        "removeprefix" => Value::from(text.strip_prefix(one()?).unwrap_or(text)),
        "removesuffix" => Value::from(text.strip_suffix(one()?).unwrap_or(text)),
        "index" | "rindex" => {
            let place = if name == "index" { text.find(one()?) } else { text.rfind(one()?) };
            let place = place.ok_or_else(|| type_error("substring not found"))?;
            Value::from(text[..place].chars().count())
        }
        "casefold" => Value::from(text.to_lowercase()),
        "zfill" => pad(text, args, Side::Zeros)?,
        "ljust" => pad(text, args, Side::Right)?,
        "rjust" => pad(text, args, Side::Left)?,
        "center" => pad(text, args, Side::Both)?,
        _ => return Ok(None),
    }))
}

fn strings<'a>(parts: impl IntoIterator<Item = &'a str>) -> Value {
    parts.into_iter().map(Value::from).collect()
}

/// str.split and, from the right, str.rsplit: (sep=None, maxsplit=-1), both also by name.
fn split(text: &str, args: &[Value], from_right: bool) -> Result<Value, Error> {
    let (separator, most, kwargs): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = match separator {
        Some(separator) => Some(separator),
        None => kwargs.get::<Option<Value>>("sep")?,
    };
    let most = match most {
        Some(most) => most,
        None => kwargs.get::<Option<i64>>("maxsplit")?.unwrap_or(-1),
    };
    kwargs.assert_all_used()?;
    let most = usize::try_from(most).map_or(usize::MAX, |most| most.saturating_add(1));
    let separator = separator.filter(|separator| !separator.is_none());
    let Some(separator) = separator else {
        return Ok(split_at_space(text, most, from_right));
    };
    match separator.as_str() {
        None => Err(type_error("must be str or None")),
        Some("") => Err(type_error("empty separator")),
        Some(separator) if from_right => {
            let mut parts: Vec<&str> = text.rsplitn(most, separator).collect();
            parts.reverse();
            Ok(strings(parts))
        }
        Some(separator) => Ok(strings(text.splitn(most, separator))),
    }
}

fn split_at_space(text: &str, most: usize, from_right: bool) -> Value {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let place = if parts.len() + 1 == most {
            None
        } else if from_right {
            rest.rfind(char::is_whitespace)
        } else {
            rest.find(char::is_whitespace)
        };
        let Some(place) = place else {
            parts.push(rest);
            break;
        };
        let (left, right) = rest.split_at(place);
        if from_right {
            parts.push(right.trim_start());
            rest = left.trim_end();
        } else {
            parts.push(left);
            rest = right.trim_start();
        }
    }
    if from_right {
        parts.reverse();
    }
    strings(parts)
}

fn partition(
    text: &str,
    place: Option<usize>,
    separator: &str,
    from_right: bool,
) -> Result<Value, Error> {
    if separator.is_empty() {
        return Err(type_error("empty separator"));
    }
    Ok(strings(match place {
        Some(at) => [&text[..at], separator, &text[at + separator.len()..]],
        None if from_right => ["", "", text],
        None => [text, "", ""],
    }))
}

#[derive(PartialEq)]
enum Side {
    Left,
    Right,
    Both,
    Zeros,
}

fn pad(text: &str, args: &[Value], side: Side) -> Result<Value, Error> {
    let (width, fill): (i64, Option<&str>) = from_args(args)?;
    let length = text.chars().count();
    let missing = (width.clamp(0, 1 << 20) as usize).saturating_sub(length);
    let fill = if side == Side::Zeros { "0" } else { fill.unwrap_or(" ") };
    if side == Side::Zeros {
        let digits = text.trim_start_matches(['+', '-']);
        let sign = &text[..(text.len() - digits.len()).min(1)];
        return Ok(Value::from(format!("{sign}{}{}", fill.repeat(missing), &text[sign.len()..])));
    }
    let left = match side {
        Side::Left => missing,
        Side::Both => missing / 2 + (missing & width as usize & 1),
        _ => 0,
    };
    Ok(Value::from(format!("{}{text}{}", fill.repeat(left), fill.repeat(missing - left))))
}
