//! Prepares a template's source for minijinja where it differs from Jinja as `transformers` sets it
//! up:
//!
//! - `{% generation %}` marks the assistant's words for training masks; here it is a plain scope.
//! - A loop over None is an error in Python and an empty loop in minijinja, so what is looped over
//!   goes through the filter `LOOP_FILTER`.
//! - Jinja reads \r\n and \r as \n.
//! - Expressions: expression.rs.

use crate::expression::rewrite;

pub const LOOP_FILTER: &str = "sluice_loop";

/// The template in minijinja's dialect. What is not well formed is left for the parser to report.
pub fn prepare(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len() + source.len() / 8);
    let mut rest = source.as_str();
    while let Some(at) = rest.find('{') {
        let (text, tag) = rest.split_at(at);
        out.push_str(text);
        let length = match tag.as_bytes().get(1) {
            Some(b'#') => tag.find("#}").map_or(tag.len(), |end| end + 2),
            Some(b'{') => {
                let inside = tag_length(&tag[2..], "}}");
                push_output(&mut out, &tag[..2 + inside]);
                rest = &tag[2 + inside..];
                continue;
            }
            Some(b'%') => match raw_length(tag) {
                Some(length) => length,
                None => {
                    let inside = tag_length(&tag[2..], "%}");
                    push_block(&mut out, &tag[..2 + inside]);
                    rest = &tag[2 + inside..];
                    continue;
                }
            },
            _ => 1,
        };
        out.push_str(&tag[..length]);
        rest = &tag[length..];
    }
    out.push_str(rest);
    out
}

/// The bytes of `text` up to and with `end`, which counts only outside strings and brackets.
fn tag_length(text: &str, end: &str) -> usize {
    let mut at = 0;
    let mut depth = 0usize;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if depth == 0 && rest.starts_with(end.as_bytes()) {
            return at + end.len();
        }
        match rest[0] {
            quote @ (b'"' | b'\'') => {
                at += string_length(rest, quote);
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    text.len()
}

/// The bytes of the string literal that `text` begins with.
fn string_length(text: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// A whole `{% raw %} … {% endraw %}`.
fn raw_length(tag: &str) -> Option<usize> {
    if block_name(tag) != "raw" {
        return None;
    }
    let mut at = 2;
    while let Some(found) = tag[at..].find("{%") {
        at += found;
        if block_name(&tag[at..]) == "endraw" {
            return tag[at..].find("%}").map(|end| at + end + 2);
        }
        at += 2;
    }
    Some(tag.len())
}

fn block_name(tag: &str) -> &str {
    let (start, length) = name_place(tag);
    &tag[start..start + length]
}

fn name_place(tag: &str) -> (usize, usize) {
    let mut start = 2;
    if matches!(tag.as_bytes().get(start), Some(b'-' | b'+')) {
        start += 1;
    }
    start += tag[start..].len() - tag[start..].trim_start().len();
    let length = tag[start..]
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(tag.len() - start);
    (start, length)
}

/// A text and what ends its tag: "%}", "-%}", "+}}" …
fn split_end<'a>(text: &'a str, end: &str) -> (&'a str, &'a str) {
    let body = text.strip_suffix(end).unwrap_or(text);
    let body = body.strip_suffix(['-', '+']).unwrap_or(body);
    text.split_at(body.len())
}

/// `{{ … }}`. What begins it may be `{{-`.
fn push_output(out: &mut String, tag: &str) {
    let start = if tag[2..].starts_with(['-', '+']) { 3 } else { 2 };
    let (body, end) = split_end(&tag[start..], "}}");
    out.push_str(&tag[..start]);
    out.push_str(&rewrite(body));
    out.push_str(end);
}

fn push_block(out: &mut String, tag: &str) {
    let (start, length) = name_place(tag);
    let (head, name, tail) = (&tag[..start], &tag[start..start + length], &tag[start + length..]);
    out.push_str(head);
    match name {
        "generation" => out.push_str("with"),
        "endgeneration" => out.push_str("endwith"),
        _ => out.push_str(name),
    }
    let (body, end) = split_end(tail, "%}");
    match name {
        "for" => push_loop(out, tail),
        // What is assigned to is no value.
        "set" => match assignment(body) {
            Some(at) => {
                out.push_str(&body[..at]);
                out.push_str(&rewrite(&body[at..]));
                out.push_str(end);
            }
            None => out.push_str(tail),
        },
        _ => {
            out.push_str(&rewrite(body));
            out.push_str(end);
        }
    }
}

/// Behind the first "=" outside strings and brackets.
fn assignment(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0usize);
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'\'') => {
                at += string_length(&bytes[at..], quote);
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'=' if depth == 0 => return Some(at + 1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// `target in iterable if condition recursive %}` with the iterable filtered.
fn push_loop(out: &mut String, tail: &str) {
    let body = tail.strip_suffix("%}").unwrap_or(tail);
    let body = body.strip_suffix(['-', '+']).unwrap_or(body);
    let Some(first) = word_end(body, &["in"]) else {
        out.push_str(tail);
        return;
    };
    let iterable = &body[first..];
    let (rewritten, end) = (rewrite(iterable), &tail[body.len()..]);
    let iterable = rewritten.as_str();
    let last = word_end(iterable, &["if", "recursive"]).map_or(iterable.len(), |end| {
        iterable[..end].trim_end_matches(|c: char| c.is_ascii_alphabetic()).len()
    });
    out.push_str(&body[..first]);
    out.push_str(" (");
    out.push_str(iterable[..last].trim());
    out.push_str(") | ");
    out.push_str(LOOP_FILTER);
    out.push(' ');
    out.push_str(&iterable[last..]);
    out.push_str(end);
}

/// Behind the first of `words` outside strings and brackets.
fn word_end(text: &str, words: &[&str]) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0usize);
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'\'') => at += string_length(&bytes[at..], quote),
            b'(' | b'[' | b'{' => {
                depth += 1;
                at += 1;
            }
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            byte if byte.is_ascii_alphanumeric() || byte == b'_' => {
                let length = bytes[at..]
                    .iter()
                    .take_while(|b| b.is_ascii_alphanumeric() || **b == b'_')
                    .count();
                let word = &text[at..at + length];
                at += length;
                if depth == 0 && words.contains(&word) {
                    return Some(at);
                }
            }
            _ => at += 1,
        }
    }
    None
}
