//! tokenizer.json: text to ids by the `tokenizers` crate, and what decoding needs to know.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokenizers::{Decoder as _, DecoderWrapper, Tokenizer};

use crate::failure::{Code, Failure, Outcome};
use crate::guard;

/// The largest in use, Gemma's, has 33 MB.
const FILE_BYTES_MAX: usize = 256 << 20;
const TEXT_BYTES_MAX: usize = 256 << 20;
const OPEN_MEMORY: usize = 64 << 20;
const OPEN_MEMORY_PER_BYTE: usize = 100;
const OPEN_TIME: Duration = Duration::from_secs(300);
const ENCODE_MEMORY: usize = 64 << 20;
const ENCODE_MEMORY_PER_BYTE: usize = 1000;
const ENCODE_TIME: Duration = Duration::from_secs(60);
/// A slow tokenizer on a busy machine.
const ENCODE_BYTES_PER_SECOND: u64 = 50_000;
/// How much longer replacing may make a token.
const DECODED_GROWTH_MAX: usize = 4096;

pub struct Loaded {
    pub tokenizer: Arc<Tokenizer>,
    pub pieces: Option<Pieces>,
    spent: AtomicBool,
}

/// How sentencepiece models decode: tokens one by one, bytes by tokens such as <0x0A>, and spaces
/// taken from the beginning of the text.
pub struct Pieces {
    replace: DecoderWrapper,
    pub strip: char,
    pub strip_count: usize,
}

impl Pieces {
    pub fn text(&self, token: String) -> Outcome<String> {
        self.replace.decode(vec![token]).map_err(decode_failure)
    }
}

pub fn decode_failure(error: tokenizers::Error) -> Failure {
    Failure::new(Code::Unsupported, format!("cannot decode: {error}"))
}

/// The byte that a sentencepiece token such as <0x0A> stands for.
pub fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

impl Loaded {
    pub fn open(bytes: &[u8]) -> Outcome<Loaded> {
        if bytes.len() > FILE_BYTES_MAX {
            let message = format!("{} bytes are more than {FILE_BYTES_MAX}", bytes.len());
            return Err(Failure::new(Code::Unsupported, message));
        }
        // Read by every loop over inputs that could be shared among threads; ours have one input.
        tokenizers::utils::parallelism::set_parallelism(false);
        let limits = guard::Limits {
            memory_bytes: OPEN_MEMORY + OPEN_MEMORY_PER_BYTE * bytes.len(),
            time: OPEN_TIME,
        };
        let bytes = bytes.to_vec();
        let (tokenizer, pieces) =
            guard::run(limits, move || load(&bytes)).map_err(|failure| match failure {
                guard::Failure::Panic => Failure::new(Code::Corrupt, "it describes no tokenizer"),
                other => Failure::guarded("the tokenizer", other),
            })??;
        // Parsing takes many times what stays, and leaves that strewn over the guarded thread's part
        // of the heap. A copy from this thread's own part lets all of the other go.
        let tokenizer = Arc::new(Tokenizer::clone(&tokenizer));
        Ok(Loaded { tokenizer, pieces, spent: AtomicBool::new(false) })
    }

    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Outcome<Vec<u32>> {
        if self.spent.load(Ordering::Relaxed) {
            let message = "the tokenizer went over its limits before";
            return Err(Failure::new(Code::Unsupported, message));
        }
        if text.len() > TEXT_BYTES_MAX {
            let message =
                format!("a text of {} bytes; {TEXT_BYTES_MAX} can be encoded", text.len());
            return Err(Failure::new(Code::InvalidArgument, message));
        }
        let limits = guard::Limits {
            memory_bytes: ENCODE_MEMORY + ENCODE_MEMORY_PER_BYTE * text.len(),
            time: ENCODE_TIME + Duration::from_secs(text.len() as u64 / ENCODE_BYTES_PER_SECOND),
        };
        let (tokenizer, text) = (self.tokenizer.clone(), text.to_owned());
        let encoded = guard::run(limits, move || {
            let encoding = tokenizer.encode_fast(text, add_special_tokens)?;
            Ok(encoding.get_ids().to_vec())
        });
        match encoded {
            Ok(Ok(ids)) => Ok(ids),
            Ok(Err(error)) => Err(encode_failure(error)),
            Err(failure) => {
                if matches!(failure, guard::Failure::Memory | guard::Failure::Time) {
                    self.spent.store(true, Ordering::Relaxed);
                }
                Err(Failure::guarded("the tokenizer", failure))
            }
        }
    }

    /// As the vocabulary spells it; None where there is no such id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    pub fn is_special(&self, id: u32) -> bool {
        let added = self.tokenizer.get_added_vocabulary();
        added.simple_id_to_token(id).is_some_and(|token| added.is_special_token(&token))
    }
}

fn encode_failure(error: tokenizers::Error) -> Failure {
    Failure::new(Code::Unsupported, format!("cannot encode: {error}"))
}

fn load(bytes: &[u8]) -> Outcome<(Tokenizer, Option<Pieces>)> {
    let mut tokenizer = Tokenizer::from_bytes(bytes)
        .map_err(|error| Failure::new(Code::Corrupt, error.to_string()))?;
    // `transformers` cuts and pads only when a caller asks for it, whatever the file says.
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(None)
        .map_err(|error| Failure::new(Code::Corrupt, error.to_string()))?;
    let steps = decoder_steps(&tokenizer)?;
    if growth(&steps) > DECODED_GROWTH_MAX {
        let message = "its decoder makes text longer than any real one does";
        return Err(Failure::new(Code::Unsupported, message));
    }
    let pieces = pieces(&steps)?;
    Ok((tokenizer, pieces))
}

/// The decoder's description, sequences spread out.
fn decoder_steps(tokenizer: &Tokenizer) -> Outcome<Vec<serde_json::Value>> {
    let unreadable =
        |error: serde_json::Error| Failure::new(Code::Corrupt, format!("its decoder: {error}"));
    let mut steps = Vec::new();
    let mut left = match tokenizer.get_decoder() {
        Some(decoder) => vec![serde_json::to_value(decoder).map_err(unreadable)?],
        None => Vec::new(),
    };
    while let Some(mut step) = left.pop() {
        match step.get_mut("decoders").and_then(|inner| inner.as_array_mut()) {
            Some(inner) => left.extend(std::mem::take(inner).into_iter().rev()),
            None => steps.push(step),
        }
    }
    Ok(steps)
}

fn growth(steps: &[serde_json::Value]) -> usize {
    steps.iter().fold(1, |product: usize, step| {
        let content = step["content"].as_str().map_or(0, str::len);
        let pattern = step["pattern"]["String"].as_str().map_or(1, |text| text.len().max(1));
        product.saturating_mul(content.div_ceil(pattern).max(1))
    })
}

/// Replace…, ByteFallback, Fuse, and Strip at the beginning, in that order; None for any other.
fn pieces(steps: &[serde_json::Value]) -> Outcome<Option<Pieces>> {
    let kind = |at: usize| steps.get(at).and_then(|step| step["type"].as_str()).unwrap_or("");
    let replacing = (0..steps.len()).take_while(|at| kind(*at) == "Replace").count();
    if kind(replacing) != "ByteFallback" || kind(replacing + 1) != "Fuse" {
        return Ok(None);
    }
    let strip = steps.get(replacing + 2);
    let known = match strip {
        None => true,
        Some(step) => step["type"] == "Strip" && step["stop"] == 0 && steps.len() == replacing + 3,
    };
    if !known {
        return Ok(None);
    }
    let replace = json!({"type": "Sequence", "decoders": steps[..replacing]});
    let replace = serde_json::from_value(replace)
        .map_err(|error| Failure::new(Code::Corrupt, format!("its decoder: {error}")))?;
    let character = strip.and_then(|step| step["content"].as_str()?.chars().next());
    let count = strip.and_then(|step| step["start"].as_u64()).unwrap_or(0);
    Ok(Some(Pieces {
        replace,
        strip: character.unwrap_or(' '),
        strip_count: usize::try_from(count).unwrap_or(usize::MAX),
    }))
}
