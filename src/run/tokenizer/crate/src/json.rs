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

pub fn tojson(value: &Value, args: minijinja::value::Rest<Value>) -> Result<Value, Error> {
    let (positional, kwargs): (&[Value], Kwargs) = minijinja::value::from_args(&args)?;
    let style = read_style(positional, &kwargs)?;
    kwargs.assert_all_used()?;
    let mut out = String::new();
    write_value(&mut out, value, &style, 0)?;
    Ok(Value::from(out))
}

/// Parameters in the order of the filter in `transformers`.
fn read_style(positional: &[Value], kwargs: &Kwargs) -> Result<Style, Error> {
    let argument = |at: usize, name: &str| -> Result<Option<Value>, Error> {
        let value = match positional.get(at) {
            Some(value) => Some(value.clone()),
            None => kwargs.get::<Option<Value>>(name)?,
        };
        Ok(value.filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let indent = argument(1, "indent")?.map(indent_text).transpose()?;
    let (mut item, mut key) =
        (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned());
    if let Some(separators) = argument(2, "separators")? {
        let texts: Vec<String> = separators.try_iter()?.map(|text| text.to_string()).collect();
        let [first, second] = <[String; 2]>::try_from(texts).map_err(|_| {
            Error::new(ErrorKind::InvalidOperation, "tojson: separators should be two strings")
        })?;
        (item, key) = (first, second);
    }
    Ok(Style {
        ensure_ascii: argument(0, "ensure_ascii")?.is_some_and(|value| value.is_true()),
        sort_keys: argument(3, "sort_keys")?.is_some_and(|value| value.is_true()),
        indent,
        item_separator: item,
        key_separator: key,
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
