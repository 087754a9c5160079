//! Why a call failed, with the codes of the C interface.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    Corrupt = 1,
    Unsupported = 2,
    InvalidArgument = 3,
    Exhausted = 4,
}

#[derive(Clone, Debug)]
pub struct Failure {
    pub code: Code,
    pub message: String,
}

pub type Outcome<T> = Result<T, Failure>;

/// What Python would raise as a TypeError or its like within a template.
pub fn type_error(message: impl Into<String>) -> minijinja::Error {
    minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, message.into())
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }

    /// A call that its guard stopped. what: "the template", "the tokenizer".
    pub fn guarded(what: &str, failure: crate::guard::Failure) -> Failure {
        use crate::guard::Failure::*;
        match failure {
            Memory => Failure::new(Code::Unsupported, format!("{what} asks for too much memory")),
            Time => Failure::new(Code::Unsupported, format!("{what} takes too long")),
            Panic => Failure::new(Code::Unsupported, format!("{what} failed on this input")),
            Thread => Failure::new(Code::Exhausted, format!("no thread to run {what} on")),
        }
    }
}
