//! The tokens of a tokenizer as bytes, exactly as it decodes them, in a trie for grammars.

use std::sync::Arc;

use tokenizers::DecoderWrapper;
use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use crate::failure::{Code, Failure, Outcome};
use crate::tokenizer::{byte_of, Loaded};

/// The trie's own limit is 2 million; the largest vocabulary in use has 260,000.
const TOKENS_MAX: usize = 1 << 20;
/// Of a token that grammars may use; the trie's limit is 1024, the longest in use is 1024 spaces.
const TOKEN_BYTES_MAX: usize = 1000;

/// Ids are as many as the result's vocab_size less one: the last one stands for the end of the text,
/// whichever tokens end it for the model.
pub fn token_env(loaded: &Loaded) -> Outcome<TokEnv> {
    let vocabulary = loaded.tokenizer.get_vocab(true);
    let count = vocabulary.values().max().map_or(0, |id| *id as usize + 1);
    if count >= TOKENS_MAX {
        let message = format!("ids of tokens reach {count}; {TOKENS_MAX} can be constrained");
        return Err(Failure::new(Code::Unsupported, message));
    }
    let mut words = vec![Vec::new(); count + 1];
    let texts = Texts::new(loaded)?;
    for (token, id) in vocabulary {
        let mut bytes = if loaded.is_special(id) {
            special(&token)
        } else {
            texts.bytes(loaded, id, token)?
        };
        if bytes.len() > TOKEN_BYTES_MAX {
            bytes.clear();
        }
        words[id as usize] = bytes;
    }
    words[count] = special("<end of text>");
    let info = TokRxInfo::new(words.len() as u32, count as u32);
    Ok(Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words))))
}

fn special(token: &str) -> Vec<u8> {
    let mut bytes = vec![TokTrie::SPECIAL_TOKEN_MARKER];
    bytes.extend(token.as_bytes());
    bytes
}

/// How a token's text follows from its spelling.
enum Texts {
    Pieces,
    /// Which byte each character stands for, by the character's number.
    Bytes(Vec<Option<u8>>),
    /// By what a token adds behind another one.
    Behind(u32, String),
}

impl Texts {
    fn new(loaded: &Loaded) -> Outcome<Texts> {
        if loaded.pieces.is_some() {
            return Ok(Texts::Pieces);
        }
        if matches!(loaded.tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
            return Ok(Texts::Bytes(byte_table()));
        }
        let plain = |text: &str| loaded.tokenizer.token_to_id(text);
        let id = plain("a").or_else(|| plain("▁a")).or_else(|| plain("Ġa")).unwrap_or(0);
        Ok(Texts::Behind(id, decode(loaded, &[id])?))
    }

    /// Empty where the token has no text, or only a part of a character that decoding cannot show.
    fn bytes(&self, loaded: &Loaded, id: u32, token: String) -> Outcome<Vec<u8>> {
        Ok(match (self, &loaded.pieces) {
            (Texts::Bytes(table), _) => {
                let byte = |c: char| table.get(c as usize).copied().flatten();
                let bytes: Option<Vec<u8>> = token.chars().map(byte).collect();
                bytes.unwrap_or_else(|| token.into_bytes())
            }
            (Texts::Pieces, Some(pieces)) => match byte_of(&token) {
                Some(byte) => vec![byte],
                None => pieces.text(token)?.into_bytes(),
            },
            (Texts::Behind(first, text), _) => {
                let both = decode(loaded, &[*first, id])?;
                match both.strip_prefix(text.as_str()) {
                    Some(rest) if !rest.contains('\u{fffd}') => rest.as_bytes().to_vec(),
                    _ => Vec::new(),
                }
            }
            (Texts::Pieces, None) => Vec::new(),
        })
    }
}

fn decode(loaded: &Loaded, ids: &[u32]) -> Outcome<String> {
    loaded.tokenizer.decode(ids, false).map_err(crate::tokenizer::decode_failure)
}

/// GPT-2's: printable bytes stand for themselves, the others are moved up behind 255 in order.
fn byte_table() -> Vec<Option<u8>> {
    let mut table = vec![None; 512];
    let mut moved = 256;
    for byte in 0..=255u8 {
        let itself = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let at = if itself { byte as usize } else { moved };
        moved += usize::from(!itself);
        table[at] = Some(byte);
    }
    table
}
