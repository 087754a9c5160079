//! `tojson` as `transformers` defines it: Python's json.dumps without escaping for HTML, and
//! without escaping what is not ASCII unless asked to.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

const DEPTH_MAX: usize = 500;

struct Style {
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
}

pub fn tojson(
    value: &Value,
    ensure_ascii: Option<Value>,
    indent: Option<Value>,
    separators: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let or_named = |argument: Option<Value>, name: &str| match argument {
        Some(argument) => Ok(Some(argument)),
        None => kwargs.get::<Option<Value>>(name),
    };
    let truth = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let indent = or_named(indent, "indent")?.map(indent_text).transpose()?;
    let between = if indent.is_some() { "," } else { ", " };
    let [item_separator, key_separator] = match or_named(separators, "separators")? {
        Some(separators) => two_texts(&separators)?,
        None => [between.to_owned(), ": ".to_owned()],
    };
    let style = Style {
        ensure_ascii: truth(or_named(ensure_ascii, "ensure_ascii")?),
        sort_keys: truth(kwargs.get("sort_keys")?),
        indent,
        item_separator,
        key_separator,
    };
    kwargs.assert_all_used()?;
    let mut out = String::new();
    write_value(&mut out, value, &style, 0)?;
    Ok(Value::from(out))
}

fn two_texts(separators: &Value) -> Result<[String; 2], Error> {
    let texts: Vec<String> = separators.try_iter()?.map(|text| text.to_string()).collect();
    texts.try_into().map_err(|_| {
        Error::new(ErrorKind::InvalidOperation, "tojson: separators should be two strings")
    })
}

fn indent_text(indent: Value) -> Result<String, Error> {
    if let Some(text) = indent.as_str() {
        return Ok(text.to_owned());
    }
    let count = i64::try_from(indent)?.clamp(0, 1000);
    Ok(" ".repeat(count as usize))
}

fn not_serializable(what: &str) -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        format!("Object of type {what} is not JSON serializable"),
    )
}

fn write_value(out: &mut String, value: &Value, style: &Style, depth: usize) -> Result<(), Error> {
    if depth > DEPTH_MAX {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson: nested too deeply"));
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String => write_string(out, value.as_str().unwrap_or_default(), style),
        ValueKind::Seq | ValueKind::Iterable => write_list(out, value, style, depth)?,
        ValueKind::Map => write_map(out, value, style, depth)?,
        ValueKind::Undefined => return Err(not_serializable("Undefined")),
        kind => return Err(not_serializable(&kind.to_string())),
    }
    Ok(())
}

fn break_line(out: &mut String, style: &Style, depth: usize) {
    if let Some(indent) = &style.indent {
        out.push('\n');
        for _ in 0..depth {
            out.push_str(indent);
        }
    }
}

fn write_list(out: &mut String, value: &Value, style: &Style, depth: usize) -> Result<(), Error> {
    out.push('[');
    let mut empty = true;
    for item in value.try_iter()?.checked() {
        if !empty {
            out.push_str(&style.item_separator);
        }
        empty = false;
        break_line(out, style, depth + 1);
        write_value(out, &item?, style, depth + 1)?;
    }
    if !empty {
        break_line(out, style, depth);
    }
    out.push(']');
    Ok(())
}

fn write_map(out: &mut String, value: &Value, style: &Style, depth: usize) -> Result<(), Error> {
    let mut pairs = Vec::new();
    for key in value.try_iter()?.checked() {
        let key = key?;
        pairs.push((key_text(&key)?, value.get_item(&key)?));
    }
    if style.sort_keys {
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
    }
    out.push('{');
    for (at, (key, item)) in pairs.iter().enumerate() {
        if at > 0 {
            out.push_str(&style.item_separator);
        }
        break_line(out, style, depth + 1);
        write_string(out, key, style);
        out.push_str(&style.key_separator);
        write_value(out, item, style, depth + 1)?;
    }
    if !pairs.is_empty() {
        break_line(out, style, depth);
    }
    out.push('}');
    Ok(())
}

fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.to_string()),
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Number => Ok(number(key)),
        kind => Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("keys must be str, int, float, bool or None, not {kind}"),
        )),
    }
}

fn write_string(out: &mut String, text: &str, style: &Style) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            c if c < ' ' || (style.ensure_ascii && c > '~') => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A number as Python's repr writes it; JSON's names for what is not finite are json.dumps's own.
fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()) {
        Ok(x) if x.is_nan() => "NaN".to_owned(),
        Ok(x) if x.is_infinite() => if x > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        Ok(x) => float(x),
        Err(_) => value.to_string(),
    }
}

/// repr(float): the shortest digits that read back the same, with an exponent below 1e-4 and from
/// 1e16 on.
pub fn float(x: f64) -> String {
    if x.is_nan() {
        return "nan".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if x != 0.0 && !(1e-4..1e16).contains(&x.abs()) {
        let text = format!("{x:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let text = x.to_string();
    if text.contains('.') {
        text
    } else {
        text + ".0"
    }
}
