//! Methods of Python's objects that a template names without calling them. Jinja looks for a method
//! before it looks for a key, so that `schema.items` is a method even where the schema has items.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr, Value, ValueKind};
use minijinja::{Error, State};

/// Those that transformers' sandbox hands out, and those that it does not, because they change the
/// object: these are undefined.
struct Type {
    name: &'static str,
    methods: &'static [&'static str],
    forbidden: &'static [&'static str],
}

const DICT: Type = Type {
    name: "dict",
    methods: &["copy", "fromkeys", "get", "items", "keys", "values"],
    forbidden: &["clear", "pop", "popitem", "setdefault", "update"],
};
const LIST: Type = Type {
    name: "list",
    methods: &["copy", "count", "index"],
    forbidden: &["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"],
};
const TUPLE: Type = Type { name: "tuple", methods: &["count", "index"], forbidden: &[] };
const STR: Type = Type {
    name: "str",
    methods: &[
        "capitalize",
        "casefold",
        "center",
        "count",
        "encode",
        "endswith",
        "expandtabs",
        "find",
        "format",
        "format_map",
        "index",
        "isalnum",
        "isalpha",
        "isascii",
        "isdecimal",
        "isdigit",
        "isidentifier",
        "islower",
        "isnumeric",
        "isprintable",
        "isspace",
        "istitle",
        "isupper",
        "join",
        "ljust",
        "lower",
        "lstrip",
        "maketrans",
        "partition",
        "removeprefix",
        "removesuffix",
        "replace",
        "rfind",
        "rindex",
        "rjust",
        "rpartition",
        "rsplit",
        "rstrip",
        "split",
        "splitlines",
        "startswith",
        "strip",
        "swapcase",
        "title",
        "translate",
        "upper",
        "zfill",
    ],
    forbidden: &[],
};

/// Of any of the types.
pub fn is_method(name: &str) -> bool {
    [DICT, LIST, STR].iter().any(|t| t.methods.contains(&name) || t.forbidden.contains(&name))
}

fn type_of(value: &Value) -> Option<Type> {
    match value.kind() {
        ValueKind::String => Some(STR),
        ValueKind::Seq if value.is_tuple() => Some(TUPLE),
        ValueKind::Seq => Some(LIST),
        // A namespace has names of its own alone.
        ValueKind::Map
            if !value.as_object().is_some_and(|o| o.type_name().contains("Namespace")) =>
        {
            Some(DICT)
        }
        _ => None,
    }
}

/// `value.name`.
pub fn attribute(value: &Value, name: &str) -> Result<Value, Error> {
    match type_of(value) {
        Some(found) if found.methods.contains(&name) => Ok(Value::from_object(Method {
            of: value.clone(),
            type_name: found.name,
            name: name.to_owned(),
        })),
        Some(found) if found.forbidden.contains(&name) => Ok(Value::UNDEFINED),
        _ => value.get_attr(name),
    }
}

/// `value['name']`: keys come first there.
pub fn item(value: &Value, name: &str) -> Result<Value, Error> {
    if value.kind() == ValueKind::Map {
        let found = value.get_item(&Value::from(name))?;
        if !found.is_undefined() {
            return Ok(found);
        }
    }
    attribute(value, name)
}

#[derive(Debug)]
struct Method {
    of: Value,
    type_name: &'static str,
    name: String,
}

impl Object for Method {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        self.of.call_method(state, &self.name, args)
    }
    /// Python prints the object's address, which nobody can expect.
    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<built-in method {} of {} object>", self.name, self.type_name)
    }
}
