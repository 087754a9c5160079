//! Ids to text, one at a time: each call returns what no later id can change.
//!
//! What is held back is a character of which bytes are missing. Bytes that can no longer become a
//! character are U+FFFD, one for each where tokens stand for bytes, as `tokenizers` has it; but
//! where it would replace a whole run of byte tokens for one wrong byte, characters of that run
//! that were complete before stay.

use std::sync::Arc;

use crate::failure::Outcome;
use crate::tokenizer::{byte_of, decode_failure, Loaded, Pieces};

const REPLACEMENT: char = '\u{fffd}';
/// A longer window is cut if it can be: its last character is not complete after this many tokens.
const WINDOW_MAX: usize = 16;
/// Four tokens hold any incomplete character: each has a byte at least.
const TAIL: usize = 4;
/// A window this long is shown as it is; only a vocabulary of broken tokens gets here.
const WINDOW_LIMIT: usize = 256;

pub struct Decoder {
    loaded: Arc<Loaded>,
    skip_special: bool,
    /// Windows: the tokens whose text is not all shown, after one or more that are.
    window: Vec<u32>,
    /// Windows: bytes of the window's text that have been shown.
    shown: usize,
    /// Pieces: bytes of a character that is not complete.
    bytes: Vec<u8>,
    /// Pieces: how many characters are still to be taken from the beginning.
    strip: usize,
}

impl Decoder {
    pub fn new(loaded: Arc<Loaded>, skip_special: bool) -> Decoder {
        let strip = loaded.pieces.as_ref().map_or(0, |pieces| pieces.strip_count);
        Decoder { loaded, skip_special, window: Vec::new(), shown: 0, bytes: Vec::new(), strip }
    }

    pub fn push(&mut self, id: u32) -> Outcome<String> {
        let Some(token) = self.loaded.token(id) else {
            return Ok(String::new());
        };
        if self.skip_special && self.loaded.is_special(id) {
            return Ok(String::new());
        }
        let loaded = self.loaded.clone();
        match &loaded.pieces {
            Some(pieces) => self.push_piece(pieces, token),
            None => self.push_window(id),
        }
    }

    /// What is still held back; the decoder is then as new.
    pub fn flush(&mut self) -> Outcome<String> {
        let loaded = self.loaded.clone();
        let text = match &loaded.pieces {
            Some(pieces) => {
                let text = self.broken_bytes();
                self.without_beginning(pieces, text)
            }
            None => {
                let text = self.decode(&self.window)?;
                text.get(self.shown..).unwrap_or_default().to_owned()
            }
        };
        *self = Decoder::new(loaded, self.skip_special);
        Ok(text)
    }

    // ---- pieces ----

    fn push_piece(&mut self, pieces: &Pieces, token: String) -> Outcome<String> {
        let text = match byte_of(&token) {
            Some(byte) => {
                self.bytes.push(byte);
                self.complete_bytes()
            }
            None => {
                let mut text = self.broken_bytes();
                text.push_str(&pieces.text(token)?);
                text
            }
        };
        Ok(self.without_beginning(pieces, text))
    }

    fn broken_bytes(&mut self) -> String {
        self.bytes.drain(..).map(|_| REPLACEMENT).collect()
    }

    /// Takes from the bytes all but the beginning of a character.
    fn complete_bytes(&mut self) -> String {
        let mut text = String::new();
        loop {
            let (valid, broken) = match std::str::from_utf8(&self.bytes) {
                Ok(_) => (self.bytes.len(), Some(0)),
                Err(error) => (error.valid_up_to(), error.error_len()),
            };
            text.extend(String::from_utf8(self.bytes.drain(..valid).collect()));
            match broken {
                Some(count) if count > 0 => {
                    text.extend(self.bytes.drain(..count).map(|_| REPLACEMENT));
                }
                _ => return text,
            }
        }
    }

    fn without_beginning(&mut self, pieces: &Pieces, text: String) -> String {
        let mut rest = text.as_str();
        while self.strip > 0 && !rest.is_empty() {
            match rest.strip_prefix(pieces.strip) {
                Some(stripped) => {
                    rest = stripped;
                    self.strip -= 1;
                }
                None => self.strip = 0,
            }
        }
        rest.to_owned()
    }

    // ---- windows ----

    fn decode(&self, ids: &[u32]) -> Outcome<String> {
        self.loaded.tokenizer.decode(ids, false).map_err(decode_failure)
    }

    /// The text that later tokens leave as it is: all but a U+FFFD at the end, which may be the
    /// beginning of a character.
    fn stable(text: &str) -> &str {
        text.strip_suffix(REPLACEMENT).unwrap_or(text)
    }

    fn push_window(&mut self, id: u32) -> Outcome<String> {
        self.window.push(id);
        let text = self.decode(&self.window)?;
        let give_up = self.window.len() >= WINDOW_LIMIT;
        let stable = if give_up { &text } else { Self::stable(&text) };
        let new = stable.get(self.shown..).unwrap_or_default().to_owned();
        self.shown = self.shown.max(stable.len());
        if stable.len() == text.len() {
            // One token stays, since the first of a text may be decoded differently.
            self.window.drain(..self.window.len() - 1);
            self.shown = self.decode(&self.window)?.len();
        } else if self.window.len() > WINDOW_MAX {
            self.cut(&text)?;
        }
        Ok(new)
    }

    /// Drops shown tokens from the window where the text falls into two parts.
    fn cut(&mut self, text: &str) -> Outcome<()> {
        for first in (1..=self.window.len() - TAIL).rev().take(TAIL) {
            let (left, right) = self.window.split_at(first);
            let (left, right) = (self.decode(left)?, self.decode(right)?);
            if text.strip_prefix(left.as_str()) == Some(right.as_str()) {
                self.shown = Self::stable(&right).len();
                self.window.drain(..first);
                return Ok(());
            }
        }
        Ok(())
    }
}
