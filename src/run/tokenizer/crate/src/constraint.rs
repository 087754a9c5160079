//! What may follow, token by token: schemas, expressions and grammars by the `llguidance` crate.
//!
//! Grammars are foreign input. Reading one is guarded as a whole; the steps behind it are bounded by
//! limits of llguidance's own, since a thread for each token would cost more than the step.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::Duration;

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::{Matcher, ParserFactory};
use serde_json::{json, Value};
use toktrie::TokenId;

use crate::failure::{Code, Failure, Outcome};
use crate::guard;
use crate::tokenizer::Loaded;
use crate::vocabulary;

const TRIE_MEMORY: usize = 128 << 20;
const TRIE_MEMORY_PER_TOKEN: usize = 2000;
const TRIE_TIME: Duration = Duration::from_secs(120);
const TEXT_BYTES_MAX: usize = 4 << 20;
const OPEN_MEMORY: usize = 512 << 20;
const OPEN_TIME: Duration = Duration::from_secs(60);
/// Every grammar that its guard stopped keeps its memory, so no more than these are.
const STOPPED_MAX: u32 = 4;
const MESSAGE_CHARS_MAX: usize = 300;
/// Space between the parts of JSON: one, or a line break and what indents the next line. Without a
/// bound a model that is unsure writes spaces until it is cut off.
const WHITESPACE: &str = r"\x20|\r?\n[\x20\t]{0,32}";

/// Shared by all constraints of a tokenizer.
pub struct Grammars {
    factory: ParserFactory,
    stopped: AtomicU32,
}

pub const KIND_SCHEMA: u32 = 0;
pub const KIND_REGEX: u32 = 1;
pub const KIND_LARK: u32 = 2;

#[derive(Clone)]
pub struct Constraint {
    matcher: Matcher,
    tokens: usize,
}

impl Grammars {
    pub fn build(loaded: Arc<Loaded>) -> Outcome<Arc<Grammars>> {
        let tokens = loaded.tokenizer.get_vocab_size(true);
        let limits = guard::Limits {
            memory_bytes: TRIE_MEMORY + TRIE_MEMORY_PER_TOKEN * tokens,
            time: TRIE_TIME,
        };
        guard::run(limits, move || {
            let env = vocabulary::token_env(&loaded)?;
            let mut factory = ParserFactory::new_simple(&env)
                .map_err(|error| Failure::new(Code::Unsupported, first_line(&error)))?;
            factory.quiet();
            *factory.limits_mut() = ParserLimits {
                max_lexer_states: 50_000, // 100 MB
                verbose_errors: false,
                ..ParserLimits::default()
            };
            Ok(Arc::new(Grammars { factory, stopped: AtomicU32::new(0) }))
        })
        .map_err(|failure| Failure::guarded("the tokenizer", failure))?
    }

    pub fn open(self: &Arc<Self>, kind: u32, text: &str) -> Outcome<Constraint> {
        if text.len() > TEXT_BYTES_MAX {
            let message = format!("{} bytes are more than {TEXT_BYTES_MAX}", text.len());
            return Err(Failure::new(Code::Unsupported, message));
        }
        if self.stopped.load(Ordering::Relaxed) >= STOPPED_MAX {
            let message = "too many before went over the limits";
            return Err(Failure::new(Code::Exhausted, message));
        }
        let limits = guard::Limits { memory_bytes: OPEN_MEMORY, time: OPEN_TIME };
        let (shared, text) = (self.clone(), text.to_owned());
        let opened = guard::run(limits, move || shared.compile(kind, text));
        if matches!(opened, Err(guard::Failure::Memory | guard::Failure::Time)) {
            self.stopped.fetch_add(1, Ordering::Relaxed);
        }
        opened.map_err(|failure| Failure::guarded("it", failure))?
    }

    fn compile(&self, kind: u32, text: String) -> Outcome<Constraint> {
        let grammar = match kind {
            KIND_SCHEMA => TopLevelGrammar::from_json_schema(schema(&text)?),
            KIND_REGEX => TopLevelGrammar::from_regex(&text),
            KIND_LARK => TopLevelGrammar::from_lark(text),
            _ => return Err(Failure::new(Code::Unsupported, "a kind of text that is unknown")),
        };
        let mut matcher = Matcher::new(self.factory.create_parser(grammar));
        let tokens = self.factory.tok_env().tok_trie().vocab_size() - 1;
        if matcher.is_error() {
            let message = matcher.get_error().unwrap_or_default();
            return Err(refusal(&message));
        }
        // A grammar that nothing satisfies may compile all the same.
        matcher.compute_mask_or_eos().map_err(|error| refusal(&error.to_string()))?;
        Ok(Constraint { matcher, tokens })
    }
}

/// With our own settings, whatever settings the text has.
fn schema(text: &str) -> Outcome<Value> {
    let invalid = |message: String| Failure::new(Code::InvalidArgument, message);
    let mut schema: Value = serde_json::from_str(text).map_err(|e| invalid(e.to_string()))?;
    if schema == Value::Bool(true) {
        schema = json!({});
    }
    match schema.as_object_mut() {
        None => return Err(invalid("it should be a JSON object".to_owned())),
        Some(object) => object.insert("x-guidance".to_owned(), settings()),
    };
    Ok(schema)
}

fn settings() -> Value {
    json!({"whitespace_pattern": WHITESPACE})
}

fn first_line(error: &impl ToString) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().chars().take(MESSAGE_CHARS_MAX).collect()
}

/// llguidance gives no codes, so the words of its messages decide.
fn refusal(message: &str) -> Failure {
    let line = first_line(&message);
    let lower = line.to_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if any(&["unsatisfiable", "no tokens allowed", "noextensionbias"]) {
        let message = format!("nothing satisfies it: {line}");
        return Failure::new(Code::InvalidArgument, message);
    }
    if any(&["unimplemented", "not supported", "unsupported", "too large", "too many", "limit"]) {
        return Failure::new(Code::Unsupported, line);
    }
    Failure::new(Code::InvalidArgument, line)
}

impl Constraint {
    /// Words of a mask over the tokenizer's ids.
    pub fn words(&self) -> usize {
        self.tokens.div_ceil(32)
    }

    /// Fills all of `mask`, words() long; whether the text may end here.
    pub fn mask(&mut self, mask: &mut [u32]) -> Outcome<bool> {
        let allowed = self.matcher.compute_mask_or_eos().map_err(|e| refusal(&e.to_string()))?;
        let words = allowed.as_slice();
        let count = words.len().min(mask.len());
        mask[..count].copy_from_slice(&words[..count]);
        mask[count..].fill(0);
        if self.tokens % 32 != 0 {
            mask[self.tokens / 32] &= (1 << (self.tokens % 32)) - 1;
        }
        Ok(allowed.is_allowed(self.tokens as TokenId))
    }

    pub fn take(&mut self, token: u32) -> Outcome<()> {
        let refused = || Failure::new(Code::InvalidArgument, format!("token {token} is forbidden"));
        if token as usize >= self.tokens || self.matcher.is_stopped() {
            return Err(refused());
        }
        self.matcher.consume_token(token).map_err(|_| refused())
    }

    /// By the longest tokens that make up the text; grammars see bytes.
    pub fn take_text(&mut self, text: &str) -> Outcome<()> {
        let env = self.matcher.tok_env().map_err(|error| refusal(&error.to_string()))?;
        let trie = env.tok_trie();
        let tokens = trie.greedy_tokenize(text.as_bytes());
        let bytes: usize = tokens.iter().map(|token| trie.token(*token).len()).sum();
        if bytes != text.len() {
            let message = "the vocabulary has no tokens for a text".to_owned();
            return Err(Failure::new(Code::InvalidArgument, message));
        }
        tokens.into_iter().try_for_each(|token| self.take(token))
    }

    pub fn count_allowed(&mut self, tokens: &[u32]) -> Outcome<usize> {
        let known = tokens.iter().take_while(|t| (**t as usize) < self.tokens).count();
        let count = self.matcher.validate_tokens(&tokens[..known]);
        count.map_err(|error| refusal(&error.to_string()))
    }

    pub fn may_end(&mut self) -> Outcome<bool> {
        if self.matcher.is_stopped() {
            return Ok(self.matcher.stop_reason().is_ok());
        }
        self.matcher.is_accepting().map_err(|error| refusal(&error.to_string()))
    }
}
