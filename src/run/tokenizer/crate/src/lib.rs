//! The C interface, described in ../text_crate.h. Every entry catches panics; pointers are checked
//! by the one caller, the C++ facade beside this crate.

mod clock;
mod constraint;
mod decoder;
mod expression;
mod failure;
mod guard;
mod json;
mod method;
mod percent;
mod python;
mod source;
mod template;
mod tokenizer;
mod vocabulary;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, OnceLock};

use constraint::{Constraint, Grammars};
use decoder::Decoder;
use failure::{Code, Failure, Outcome};
use template::Template;
use tokenizer::Loaded;

/// Bytes of the caller.
#[repr(C)]
pub struct Bytes {
    data: *const u8,
    size: usize,
}

/// Memory of this crate, given back with sluice_text_free.
#[repr(C)]
pub struct Buffer {
    data: *mut u8,
    size: usize,
    capacity: usize,
}

#[repr(C)]
pub struct Variable {
    name: Bytes,
    json: Bytes,
}

impl Bytes {
    /// SAFETY: data must point to size readable bytes, for as long as the result lives.
    unsafe fn get<'a>(&self) -> &'a [u8] {
        if self.size == 0 {
            return &[];
        }
        unsafe { std::slice::from_raw_parts(self.data, self.size) }
    }

    /// SAFETY: as for `get`.
    unsafe fn text<'a>(&self, what: &str) -> Outcome<&'a str> {
        std::str::from_utf8(unsafe { self.get() })
            .map_err(|_| Failure::new(Code::InvalidArgument, format!("{what} is not UTF-8")))
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Buffer {
        let mut bytes = std::mem::ManuallyDrop::new(bytes);
        Buffer { data: bytes.as_mut_ptr(), size: bytes.len(), capacity: bytes.capacity() }
    }
}

/// Puts the result or the error's message into *out; returns 0 or the error's code.
fn answer(out: &mut Buffer, work: impl FnOnce() -> Outcome<Vec<u8>>) -> i32 {
    guard::silence_panics();
    let outcome = catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Failure::new(Code::Unsupported, "failed on this input")));
    match outcome {
        Ok(bytes) => {
            *out = bytes.into();
            0
        }
        Err(failure) => {
            *out = failure.message.into_bytes().into();
            failure.code as i32
        }
    }
}

/// # Safety
/// buffer is one that an entry of this interface filled, not freed before.
#[no_mangle]
pub unsafe extern "C" fn sluice_text_free(buffer: Buffer) {
    drop(unsafe { Vec::from_raw_parts(buffer.data, buffer.size, buffer.capacity) });
}

// ---- tokenizer ----

/// What the caller holds of a tokenizer. Decoders and constraints outlive it with shares of their own.
pub struct Handle {
    loaded: Arc<Loaded>,
    /// What constraints share, built when the first one is made.
    grammars: OnceLock<Outcome<Arc<Grammars>>>,
}

/// # Safety
/// See text_crate.h; here and below pointers are valid and handles came from this interface.
#[no_mangle]
pub unsafe extern "C" fn sluice_tokenizer_open(
    json: Bytes,
    tokenizer: &mut *mut Handle,
    error: &mut Buffer,
) -> i32 {
    answer(error, || {
        let loaded = Loaded::open(unsafe { json.get() })?;
        let handle = Handle { loaded: Arc::new(loaded), grammars: OnceLock::new() };
        *tokenizer = Box::into_raw(Box::new(handle));
        Ok(Vec::new())
    })
}

/// # Safety
/// As above.
#[no_mangle]
pub unsafe extern "C" fn sluice_tokenizer_free(tokenizer: *mut Handle) {
    let tokenizer = unsafe { Box::from_raw(tokenizer) };
    let _ = catch_unwind(AssertUnwindSafe(|| drop(tokenizer)));
}

/// # Safety
/// As above.
#[no_mangle]
pub unsafe extern "C" fn sluice_tokenizer_encode(
    tokenizer: &Handle,
    text: Bytes,
    add_special_tokens: bool,
    out: &mut Buffer,
) -> i32 {
    answer(out, || {
        let ids = tokenizer.loaded.encode(unsafe { text.text("the text") }?, add_special_tokens)?;
        Ok(ids.into_iter().flat_map(u32::to_ne_bytes).collect())
    })
}

/// # Safety
/// As above.
#[no_mangle]
pub unsafe extern "C" fn sluice_tokenizer_size(tokenizer: &Handle) -> usize {
    catch_unwind(AssertUnwindSafe(|| tokenizer.loaded.tokenizer.get_vocab_size(true))).unwrap_or(0)
}

/// # Safety
/// As above.
#[no_mangle]
pub unsafe extern "C" fn sluice_tokenizer_token(
    tokenizer: &Handle,
    id: u32,
    special: &mut bool,
    out: &mut Buffer,
) -> i32 {
    answer(out, || {
        *special = tokenizer.loaded.is_special(id);
        let token = tokenizer.loaded.token(id);
        let missing = || Failure::new(Code::InvalidArgument, format!("there is no token {id}"));
        token.map(String::into_bytes).ok_or_else(missing)
    })
}

/// # Safety
/// As above.
#[no_mangle]
pub unsafe extern "C" fn sluice_tokenizer_id(tokenizer: &Handle, token: Bytes) -> i64 {
    let id = catch_unwind(AssertUnwindSafe(|| {
        let token = std::str::from_utf8(unsafe { token.get() }).ok()?;
        tokenizer.loaded.tokenizer.token_to_id(token)
    }));
    id.ok().flatten().map_or(-1, i64::from)
}

// ---- decoder ----

/// # Safety
/// As above; tokenizer must be a handle of sluice_tokenizer_open.
#[no_mangle]
pub unsafe extern "C" fn sluice_decoder_new(
    tokenizer: &Handle,
    skip_special: bool,
) -> *mut Decoder {
    Box::into_raw(Box::new(Decoder::new(tokenizer.loaded.clone(), skip_special)))
}

/// # Safety
/// As above.
#[no_mangle]
pub unsafe extern "C" fn sluice_decoder_free(decoder: *mut Decoder) {
    drop(unsafe { Box::from_raw(decoder) });
}

/// # Safety
/// As above.
#[no_mangle]
pub unsafe extern "C" fn sluice_decoder_push(
    decoder: &mut Decoder,
    id: u32,
    out: &mut Buffer,
) -> i32 {
    answer(out, || decoder.push(id).map(String::into_bytes))
}

/// # Safety
/// As above.
#[no_mangle]
pub unsafe extern "C" fn sluice_decoder_flush(decoder: &mut Decoder, out: &mut Buffer) -> i32 {
    answer(out, || decoder.flush().map(String::into_bytes))
}

// ---- constraint ----

/// # Safety
/// As above; tokenizer must be a handle of sluice_tokenizer_open.
#[no_mangle]
pub unsafe extern "C" fn sluice_matcher_open(
    tokenizer: &Handle,
    kind: u32,
    text: Bytes,
    matcher: &mut *mut Constraint,
    error: &mut Buffer,
) -> i32 {
    answer(error, || {
        let build = || Grammars::build(tokenizer.loaded.clone());
        let grammars = tokenizer.grammars.get_or_init(build).clone()?;
        let opened = grammars.open(kind, unsafe { text.text("it") }?)?;
        *matcher = Box::into_raw(Box::new(opened));
        Ok(Vec::new())
    })
}

/// # Safety
/// As above.
#[no_mangle]
pub unsafe extern "C" fn sluice_matcher_free(matcher: *mut Constraint) {
    let matcher = unsafe { Box::from_raw(matcher) };
    let _ = catch_unwind(AssertUnwindSafe(|| drop(matcher)));
}

/// # Safety
/// As above.
#[no_mangle]
pub unsafe extern "C" fn sluice_matcher_clone(
    matcher: &Constraint,
    copy: &mut *mut Constraint,
    error: &mut Buffer,
) -> i32 {
    answer(error, || {
        *copy = Box::into_raw(Box::new(matcher.clone()));
        Ok(Vec::new())
    })
}

#[no_mangle]
pub extern "C" fn sluice_matcher_words(matcher: &Constraint) -> usize {
    matcher.words()
}

/// # Safety
/// As above; mask points to sluice_matcher_words words.
#[no_mangle]
pub unsafe extern "C" fn sluice_matcher_mask(
    matcher: &mut Constraint,
    mask: *mut u32,
    may_end: &mut bool,
    error: &mut Buffer,
) -> i32 {
    answer(error, || {
        let mask = unsafe { std::slice::from_raw_parts_mut(mask, matcher.words()) };
        *may_end = matcher.mask(mask)?;
        Ok(Vec::new())
    })
}

/// # Safety
/// As above.
#[no_mangle]
pub unsafe extern "C" fn sluice_matcher_take(
    matcher: &mut Constraint,
    token: u32,
    error: &mut Buffer,
) -> i32 {
    answer(error, || matcher.take(token).map(|()| Vec::new()))
}

/// # Safety
/// As above.
#[no_mangle]
pub unsafe extern "C" fn sluice_matcher_take_text(
    matcher: &mut Constraint,
    text: Bytes,
    error: &mut Buffer,
) -> i32 {
    answer(error, || matcher.take_text(unsafe { text.text("it") }?).map(|()| Vec::new()))
}

/// # Safety
/// As above; tokens points to count of them, count above 0.
#[no_mangle]
pub unsafe extern "C" fn sluice_matcher_count(
    matcher: &mut Constraint,
    tokens: *const u32,
    count: usize,
    allowed: &mut usize,
    error: &mut Buffer,
) -> i32 {
    answer(error, || {
        let tokens = unsafe { std::slice::from_raw_parts(tokens, count) };
        *allowed = matcher.count_allowed(tokens)?;
        Ok(Vec::new())
    })
}

/// # Safety
/// As above.
#[no_mangle]
pub unsafe extern "C" fn sluice_matcher_may_end(
    matcher: &mut Constraint,
    may_end: &mut bool,
    error: &mut Buffer,
) -> i32 {
    answer(error, || {
        *may_end = matcher.may_end()?;
        Ok(Vec::new())
    })
}

// ---- template ----

/// # Safety
/// As above.
#[no_mangle]
pub unsafe extern "C" fn sluice_template_open(
    source: Bytes,
    template: &mut *mut Template,
    error: &mut Buffer,
) -> i32 {
    answer(error, || {
        let opened = Template::open(unsafe { source.text("the chat template") }?)?;
        *template = Box::into_raw(Box::new(opened));
        Ok(Vec::new())
    })
}

/// # Safety
/// As above.
#[no_mangle]
pub unsafe extern "C" fn sluice_template_free(template: *mut Template) {
    let template = unsafe { Box::from_raw(template) };
    let _ = catch_unwind(AssertUnwindSafe(|| drop(template)));
}

/// # Safety
/// As above; variables points to count of them, now to six numbers.
#[no_mangle]
pub unsafe extern "C" fn sluice_template_render(
    template: &Template,
    variables: *const Variable,
    count: usize,
    now: &[i64; 6],
    out: &mut Buffer,
) -> i32 {
    answer(out, || {
        let mut owned = Vec::with_capacity(count);
        for at in 0..count {
            let variable = unsafe { &*variables.add(at) };
            let name = unsafe { variable.name.text("a variable's name") }?;
            let json = unsafe { variable.json.text(name) }?;
            owned.push((name.to_owned(), json.to_owned()));
        }
        let [year, month, day, hour, minute, second] = *now;
        let now = clock::Time { year, month, day, hour, minute, second };
        template.render(owned, now).map(String::into_bytes)
    })
}
