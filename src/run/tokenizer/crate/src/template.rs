//! Chat templates: minijinja set up as `transformers` sets Jinja up.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};

use crate::clock::Time;
use crate::failure::{Code, Failure, Outcome};
use crate::{guard, python, source};

const NAME: &str = "chat_template";
const SOURCE_BYTES_MAX: usize = 1 << 20;
const CONTEXT_BYTES_MAX: usize = 64 << 20;
const OUTPUT_BYTES_MAX: usize = 16 << 20;
/// Instructions. A long conversation with tools takes some ten thousand.
const FUEL: u64 = 10_000_000;
const RECURSION_MAX: usize = 400;
const TIME: Duration = Duration::from_secs(60);
/// A value of JSON takes some sixty bytes, of text as short as "0,".
const MEMORY_BYTES: usize = 64 << 20;
const MEMORY_PER_CONTEXT_BYTE: usize = 100;

pub struct Template {
    environment: Arc<Environment<'static>>,
    /// Set when a rendering went over its memory or time; what that rendering holds is not freed,
    /// so it must not happen twice.
    spent: AtomicBool,
}

/// raise_exception's own message, found again in the chain of sources.
#[derive(Debug)]
struct Raised(String);

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

/// Refuses what would pass the limit.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Template {
    pub fn open(text: &str) -> Outcome<Template> {
        if text.len() > SOURCE_BYTES_MAX {
            let message =
                format!("the chat template has {} bytes, more than {SOURCE_BYTES_MAX}", text.len());
            return Err(Failure::new(Code::Unsupported, message));
        }
        let text = text.to_owned();
        let limits = guard::Limits { memory_bytes: MEMORY_BYTES, time: TIME };
        let compiled = guard::run(limits, move || compile(source::prepare(&text)))
            .map_err(|failure| Failure::guarded("the chat template", failure))?;
        let environment = compiled.map_err(|error| {
            Failure::new(Code::Corrupt, format!("the chat template does not parse: {error}"))
        })?;
        Ok(Template { environment: Arc::new(environment), spent: AtomicBool::new(false) })
    }

    /// variables: names and JSON texts.
    pub fn render(&self, variables: Vec<(String, String)>, now: Time) -> Outcome<String> {
        if self.spent.load(Ordering::Relaxed) {
            let message = "the chat template went over its limits before";
            return Err(Failure::new(Code::Unsupported, message));
        }
        let bytes: usize = variables.iter().map(|(_, json)| json.len()).sum();
        if bytes > CONTEXT_BYTES_MAX {
            let message = format!("{bytes} bytes of messages are more than {CONTEXT_BYTES_MAX}");
            return Err(Failure::new(Code::InvalidArgument, message));
        }
        let environment = self.environment.clone();
        let limits = guard::Limits {
            memory_bytes: MEMORY_BYTES + MEMORY_PER_CONTEXT_BYTE * bytes,
            time: TIME,
        };
        guard::run(limits, move || render(&environment, variables, now)).unwrap_or_else(|failure| {
            if matches!(failure, guard::Failure::Memory | guard::Failure::Time) {
                self.spent.store(true, Ordering::Relaxed);
            }
            Err(Failure::guarded("the chat template", failure))
        })
    }
}

fn compile(text: String) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .keep_trailing_newline(false)
            .build()?,
    );
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION_MAX);
    python::install(&mut environment);
    environment.add_function("raise_exception", raise_exception);
    environment.add_template_owned(NAME, text)?;
    Ok(environment)
}

fn render(
    environment: &Environment<'static>,
    variables: Vec<(String, String)>,
    now: Time,
) -> Outcome<String> {
    let mut context = BTreeMap::new();
    for (name, text) in variables {
        let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
            Failure::new(Code::InvalidArgument, format!("{name} is no JSON: {error}"))
        })?;
        drop(text);
        context.insert(name, Value::from(minijinja::value::Serde(json)));
    }
    let clock = move |pattern: &str| now.format(pattern);
    context.insert("strftime_now".to_owned(), Value::from_function(clock));
    let mut out = Bounded(Vec::new());
    environment
        .get_template(NAME)
        .and_then(|template| template.render_captured_to(context, &mut out).map(drop))
        .map_err(render_failure)?;
    String::from_utf8(out.0)
        .map_err(|_| Failure::new(Code::Unsupported, "the chat template wrote no UTF-8"))
}

fn render_failure(error: Error) -> Failure {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(found) = source {
        if let Some(raised) = found.downcast_ref::<Raised>() {
            return Failure::new(Code::InvalidArgument, raised.0.clone());
        }
        source = found.source();
    }
    match error.kind() {
        ErrorKind::OutOfFuel => {
            let message = format!("the chat template takes more than {FUEL} steps");
            Failure::new(Code::Unsupported, message)
        }
        ErrorKind::WriteFailure => {
            let message = format!("the chat template writes more than {OUTPUT_BYTES_MAX} bytes");
            Failure::new(Code::Unsupported, message)
        }
        ErrorKind::UnknownFilter
        | ErrorKind::UnknownTest
        | ErrorKind::UnknownFunction
        | ErrorKind::TemplateNotFound => {
            Failure::new(Code::Unsupported, format!("the chat template uses an {error}"))
        }
        _ => Failure::new(Code::InvalidArgument, format!("the chat template: {error}")),
    }
}
