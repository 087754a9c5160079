//! Python's `%`: the remainder of numbers, and printf-style formatting of strings.

use minijinja::formatting::{format, FormatStyle};
use minijinja::value::{Value, ValueKind};
use minijinja::Error;

use crate::failure::type_error;
use crate::json;

/// Of one field, and of a width or precision that is an argument.
const WIDTH_MAX: i64 = 1 << 16;

pub fn percent(left: &Value, right: &Value) -> Result<Value, Error> {
    match left.as_str() {
        Some(pattern) => Ok(Value::from(formatted(pattern, right)?)),
        None => remainder(left, right),
    }
}

/// Rounded towards minus infinity, as Python's.
fn remainder(left: &Value, right: &Value) -> Result<Value, Error> {
    let numeric = |v: &Value| matches!(v.kind(), ValueKind::Number | ValueKind::Bool);
    let whole = |v: &Value| v.is_integer() || v.kind() == ValueKind::Bool;
    if !numeric(left) || !numeric(right) {
        let (l, r) = (left.kind(), right.kind());
        return Err(type_error(format!("unsupported operand type(s) for %: {l} and {r}")));
    }
    if whole(left) && whole(right) {
        let (a, b) = (i128::try_from(left.clone())?, i128::try_from(right.clone())?);
        if b == 0 {
            return Err(type_error("integer modulo by zero"));
        }
        let found = a.wrapping_rem(b);
        let found = if found != 0 && (found < 0) != (b < 0) { found + b } else { found };
        return Ok(i64::try_from(found).map_or_else(|_| Value::from(found), Value::from));
    }
    let (a, b) = (f64::try_from(left.clone())?, f64::try_from(right.clone())?);
    if b == 0.0 {
        return Err(type_error("float modulo by zero"));
    }
    let found = a % b;
    Ok(Value::from(if found == 0.0 {
        0.0_f64.copysign(b)
    } else if (found < 0.0) != (b < 0.0) {
        found + b
    } else {
        found
    }))
}

/// What fields take, one after another, or by name.
struct Arguments<'a> {
    all: &'a Value,
    /// What a tuple holds; else the one that is there.
    list: Vec<Value>,
    used: usize,
}

impl Arguments<'_> {
    fn next(&mut self) -> Result<Value, Error> {
        self.used += 1;
        let found = self.list.get(self.used - 1).cloned();
        found.ok_or_else(|| type_error("not enough arguments for format string"))
    }
    fn named(&mut self, name: &str) -> Result<Value, Error> {
        if self.all.kind() != ValueKind::Map {
            return Err(type_error("format requires a mapping"));
        }
        self.used = self.list.len();
        let found = self.all.get_item(&Value::from(name))?;
        if found.is_undefined() {
            return Err(type_error(format!("KeyError: '{name}'")));
        }
        Ok(found)
    }
    fn finish(&self) -> Result<(), Error> {
        // Python asks for nothing but that it could be indexed.
        let indexed =
            matches!(self.all.kind(), ValueKind::Map | ValueKind::Seq | ValueKind::Undefined)
                && !self.all.is_tuple();
        if self.used >= self.list.len() || indexed {
            return Ok(());
        }
        Err(type_error("not all arguments converted during string formatting"))
    }
}

/// str() as Python has it.
fn text(value: &Value) -> String {
    if value.kind() == ValueKind::Number && !value.is_integer() {
        if let Ok(x) = f64::try_from(value.clone()) {
            return json::float(x);
        }
    }
    value.to_string()
}

/// repr(): as it stands within a list.
fn shown(value: &Value) -> String {
    if value.is_undefined() {
        return "Undefined".to_owned();
    }
    if value.as_str().is_none() {
        return text(value);
    }
    let list = Value::from(vec![value.clone()]).to_string();
    list[1..list.len() - 1].to_owned()
}

/// Digits, or `*` for the next argument.
fn number<'a>(rest: &mut &'a str, arguments: &mut Arguments) -> Result<Option<i64>, Error> {
    if let Some(behind) = rest.strip_prefix('*') {
        *rest = behind;
        let value = arguments.next()?;
        let Some(found) = value.as_i64() else { return Err(type_error("* wants int")) };
        return Ok(Some(found.clamp(-WIDTH_MAX, WIDTH_MAX)));
    }
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (found, behind) = rest.split_at(digits);
    *rest = behind;
    Ok((digits > 0).then(|| found.parse().map_or(WIDTH_MAX, |n: i64| n.min(WIDTH_MAX))))
}

fn formatted(pattern: &str, all: &Value) -> Result<String, Error> {
    let list = match all.is_tuple() {
        true => all.try_iter()?.collect(),
        false => vec![all.clone()],
    };
    let mut arguments = Arguments { all, list, used: 0 };
    let mut out = String::new();
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        field(&mut rest, &mut arguments, &mut out)?;
    }
    out.push_str(rest);
    arguments.finish()?;
    Ok(out)
}

/// Behind a `%`.
fn field(rest: &mut &str, arguments: &mut Arguments, out: &mut String) -> Result<(), Error> {
    let name = match rest.strip_prefix('(') {
        Some(inside) => {
            let end = inside.find(')').ok_or_else(|| type_error("incomplete format key"))?;
            *rest = &inside[end + 1..];
            Some(&inside[..end])
        }
        None => None,
    };
    let flags = rest.len() - rest.trim_start_matches(['#', '0', '-', ' ', '+']).len();
    let (flags, behind) = rest.split_at(flags);
    *rest = behind;
    let mut flags = flags.to_owned();
    let width = number(rest, arguments)?;
    if width.is_some_and(|width| width < 0) {
        flags.push('-');
    }
    let mut precision = None;
    if let Some(behind) = rest.strip_prefix('.') {
        *rest = behind;
        precision = Some(number(rest, arguments)?.unwrap_or(0).max(0));
    }
    *rest = rest.strip_prefix(['h', 'l', 'L']).unwrap_or(rest);
    let Some(conversion) = rest.chars().next() else {
        return Err(type_error("incomplete format"));
    };
    *rest = &rest[conversion.len_utf8()..];
    if conversion == '%' {
        out.push('%');
        return Ok(());
    }
    let value = match name {
        Some(name) => arguments.named(name)?,
        None => arguments.next()?,
    };
    let (conversion, value) = match conversion {
        's' => ('s', Value::from(text(&value))),
        'r' | 'a' => ('s', Value::from(shown(&value))),
        'd' | 'i' | 'u' => ('d', whole(&value, conversion)?),
        'c' | 'o' | 'x' | 'X' => (conversion, value),
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => (conversion, float(&value)?),
        _ => return Err(type_error(format!("unsupported format character '{conversion}'"))),
    };
    if conversion == 's' || conversion == 'c' {
        flags.retain(|flag| flag == '-');
    }
    let mut spec = format!("%{flags}");
    if let Some(width) = width {
        spec.push_str(&width.unsigned_abs().to_string());
    }
    if let Some(precision) = precision {
        spec.push_str(&format!(".{precision}"));
    }
    spec.push(conversion);
    out.push_str(&format(FormatStyle::Printf, &spec, &[value])?);
    Ok(())
}

fn whole(value: &Value, conversion: char) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Bool => Ok(Value::from(i64::from(value.is_true()))),
        ValueKind::Number if value.is_integer() => Ok(value.clone()),
        ValueKind::Number => {
            let found = f64::try_from(value.clone())?.trunc();
            if !found.is_finite() {
                return Err(type_error(format!("cannot convert float {found} to integer")));
            }
            Ok(Value::from(found as i128))
        }
        kind => {
            Err(type_error(format!("%{conversion} format: a real number is required, not {kind}")))
        }
    }
}

fn float(value: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Bool => Ok(Value::from(f64::from(u8::from(value.is_true())))),
        ValueKind::Number => Ok(Value::from(f64::try_from(value.clone())?)),
        kind => Err(type_error(format!("must be real number, not {kind}"))),
    }
}
