//! Rewrites expressions where Python's objects can do what minijinja's values cannot, before they
//! are parsed: `%` formats strings, and a method may be named without being called.
//!
//! - `a % b` becomes `PERCENT(a, b)`, with the operands that Jinja's precedence gives.
//! - `a.items`, and `a['items']`, become `ATTRIBUTE(a, "items")` and `ITEM(a, "items")`, for the
//!   names of Python's methods. Calls, `a.items()`, stay as they are.
//!
//! What is not well formed stays as it is, for the parser to report.

use crate::method::is_method;

pub const PERCENT: &str = "sluice_percent";
pub const ATTRIBUTE: &str = "sluice_attribute";
pub const ITEM: &str = "sluice_item";

/// What is known within one pair of brackets.
#[derive(Default)]
struct Level {
    /// Where in the output the operand begins that postfixes apply to.
    operand: usize,
    /// Where the operands begin that `*`, `/`, `//`, `%` and `**` have joined so far.
    chain: Option<usize>,
    after_operand: bool,
    /// `PERCENT(` is waiting for the end of its second operand.
    open: bool,
}

impl Level {
    fn begin_operand(&mut self, at: usize) {
        self.operand = at;
        self.chain.get_or_insert(at);
        self.after_operand = true;
    }
    /// Behind the second operand of `%`.
    fn close(&mut self, out: &mut String) {
        if std::mem::take(&mut self.open) {
            let length = out.trim_end().len();
            out.insert(length, ')');
        }
    }
    /// What binds less than `%` begins another chain.
    fn end_chain(&mut self, out: &mut String) {
        self.close(out);
        self.chain = None;
        self.after_operand = false;
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn word(text: &str) -> &str {
    &text[..text.bytes().take_while(|&byte| is_word(byte)).count()]
}

fn space(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// A filter's or test's name, with the space before it.
fn dotted_name(text: &str) -> usize {
    let start = space(text);
    start + text[start..].bytes().take_while(|&byte| is_word(byte) || byte == b'.').count()
}

fn quoted(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != bytes[0] {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    // An escape at the end must not lead into the middle of a character, or beyond.
    let mut end = (at + 1).min(text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    end
}

/// `['name']` at the start of a text, of a method's name: the name, and the length of all.
fn method_item(text: &str) -> Option<(&str, usize)> {
    let start = 1 + space(&text[1..]);
    let rest = &text[start..];
    if !rest.starts_with(['"', '\'']) {
        return None;
    }
    let length = quoted(rest);
    let name = rest.get(1..length - 1)?;
    let end = start + length + space(&rest[length..]);
    (is_method(name) && text[end..].starts_with(']')).then_some((name, end + 1))
}

pub fn rewrite(text: &str) -> String {
    rewritten(text).unwrap_or_else(|| text.to_owned())
}

/// None: brackets do not match.
fn rewritten(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    let mut levels = vec![Level::default()];
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let level = levels.last_mut()?;
        let mut length = 1;
        match rest.as_bytes()[0] {
            b'"' | b'\'' => {
                level.begin_operand(out.len());
                length = quoted(rest);
            }
            b'0'..=b'9' => {
                level.begin_operand(out.len());
                let digits = |text: &str| {
                    text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count()
                };
                length = digits(rest);
                let fraction = &rest[length..];
                if fraction.starts_with('.')
                    && fraction[1..].starts_with(|c: char| c.is_ascii_digit())
                {
                    length += 1 + digits(&fraction[1..]);
                }
                // "1e-5": the sign is no operator.
                let exponent = rest[..length].ends_with(['e', 'E'])
                    && rest.starts_with(|c: char| c.is_ascii_digit());
                if exponent && rest[length..].starts_with(['-', '+']) {
                    length += 1 + digits(&rest[length + 1..]);
                }
            }
            byte if is_word(byte) => {
                let name = word(rest);
                length = name.len();
                match name {
                    "and" | "or" | "not" | "in" | "if" | "else" => level.end_chain(&mut out),
                    // Of a loop, behind what is looped over.
                    "recursive" if level.after_operand => level.end_chain(&mut out),
                    "is" => {
                        let negated = word(rest[2..].trim_start()) == "not";
                        let skipped = 2 + if negated { space(&rest[2..]) + "not".len() } else { 0 };
                        length = skipped + dotted_name(&rest[skipped..]);
                        level.after_operand = true;
                    }
                    _ => level.begin_operand(out.len()),
                }
            }
            b'|' => {
                length += dotted_name(&rest[1..]);
                level.after_operand = true;
            }
            b'.' if level.after_operand => {
                let start = 1 + space(&rest[1..]);
                let name = word(&rest[start..]);
                length = start + name.len();
                let called = rest[length..].trim_start().starts_with('(');
                if is_method(name) && !called {
                    out.insert_str(level.operand, &format!("{ATTRIBUTE}("));
                    out.push_str(&format!(", \"{name}\")"));
                    at += length;
                    continue;
                }
            }
            bracket @ (b'(' | b'[' | b'{') => {
                if bracket == b'[' && level.after_operand {
                    if let Some((name, length)) = method_item(rest) {
                        out.insert_str(level.operand, &format!("{ITEM}("));
                        out.push_str(&format!(", \"{name}\")"));
                        at += length;
                        continue;
                    }
                }
                if !level.after_operand || bracket == b'{' {
                    level.begin_operand(out.len());
                }
                levels.push(Level::default());
            }
            b')' | b']' | b'}' => {
                level.close(&mut out);
                levels.pop();
                levels.last_mut()?.after_operand = true;
            }
            b'-' if !level.after_operand => {
                level.chain.get_or_insert(out.len());
            }
            b',' | b':' | b'=' | b'<' | b'>' | b'!' | b'+' | b'-' | b'~' => {
                level.end_chain(&mut out)
            }
            b'*' if rest.starts_with("**") => {
                length = 2;
                level.after_operand = false;
            }
            b'*' | b'/' => {
                level.close(&mut out);
                level.after_operand = false;
            }
            b'%' if level.after_operand => {
                level.close(&mut out);
                out.insert_str(level.chain?, &format!("{PERCENT}("));
                out.push(',');
                level.open = true;
                level.after_operand = false;
                at += 1;
                continue;
            }
            _ => length = rest.chars().next().map_or(1, char::len_utf8),
        }
        out.push_str(&rest[..length]);
        at += length;
    }
    let level = levels.pop()?;
    if !levels.is_empty() {
        return None;
    }
    let mut level = level;
    level.close(&mut out);
    Some(out)
}
