//! What a setting may be: the rules by which values of the configuration file are read, and described.

use std::fmt::Display;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::DeValue;

/// One setting's rule. A value that breaks it is refused with a sentence that says what would be right.
pub(crate) trait Rule {
    /// What the setting is read into.
    type Value;

    /// Reads a value, or says what it must be.
    fn read(&self, value: &DeValue<'_>) -> Result<Self::Value, String>;

    /// The value when the file does not give one; `None`: the file must give one.
    fn absent(&self) -> Option<Self::Value>;

    /// What is allowed, in words with the unit.
    fn allowed(&self) -> String;

    /// The default in TOML's notation, or "required" or "none".
    fn default_text(&self) -> String;
}

/// A whole number within a range.
pub(crate) struct Integer<T> {
    default: Option<T>,
    range: RangeInclusive<T>,
    unit: &'static str,
    step: Step,
}

enum Step {
    Any,
    PowerOfTwo,
    MultipleOf(i128),
}

/// A whole number in `unit` within `range`; `default` when the file does not give one.
pub(crate) const fn integer<T>(default: T, range: RangeInclusive<T>, unit: &'static str) -> Integer<T> {
    Integer { default: Some(default), range, unit, step: Step::Any }
}

/// A whole number in `unit` within `range`, without a default.
pub(crate) const fn integer_without_default<T>(range: RangeInclusive<T>, unit: &'static str) -> Integer<T> {
    Integer { default: None, range, unit, step: Step::Any }
}

impl<T> Integer<T> {
    /// Takes powers of two only.
    pub(crate) fn power_of_two(self) -> Self {
        Self { step: Step::PowerOfTwo, ..self }
    }

    /// Takes multiples of `of` only.
    pub(crate) fn multiple_of(self, of: u32) -> Self {
        Self { step: Step::MultipleOf(i128::from(of)), ..self }
    }
}

impl<T: Copy + Display + PartialOrd + TryFrom<i128>> Rule for Integer<T> {
    type Value = T;

    fn read(&self, value: &DeValue<'_>) -> Result<T, String> {
        let DeValue::Integer(written) = value else {
            return Err(format!("must be {}, not {}", self.allowed(), kind(value)));
        };
        let number = i128::from_str_radix(written.as_str(), written.radix()).ok();
        let fits = number.filter(|n| match self.step {
            Step::Any => true,
            Step::PowerOfTwo => u128::try_from(*n).is_ok_and(u128::is_power_of_two),
            Step::MultipleOf(of) => n % of == 0,
        });
        match fits.and_then(|n| T::try_from(n).ok()).filter(|n| self.range.contains(n)) {
            Some(number) => Ok(number),
            None => Err(format!("{} is not allowed: give {}", excerpt(&written.to_string()), self.allowed())),
        }
    }

    fn absent(&self) -> Option<T> {
        self.default
    }

    fn allowed(&self) -> String {
        let what = match self.step {
            Step::Any => "a whole number".to_owned(),
            Step::PowerOfTwo => "a power of two".to_owned(),
            Step::MultipleOf(of) => format!("a multiple of {of}"),
        };
        format!("{what} from {} to {}{}", self.range.start(), self.range.end(), spaced(self.unit))
    }

    fn default_text(&self) -> String {
        self.default.map_or_else(|| "required".to_owned(), |d| d.to_string())
    }
}

fn spaced(unit: &str) -> String {
    if unit.is_empty() { String::new() } else { format!(" {unit}") }
}

/// `true` or `false`.
pub(crate) struct Flag(pub(crate) bool);

impl Rule for Flag {
    type Value = bool;

    fn read(&self, value: &DeValue<'_>) -> Result<bool, String> {
        match value {
            DeValue::Boolean(flag) => Ok(*flag),
            other => Err(format!("must be {}, not {}", self.allowed(), kind(other))),
        }
    }

    fn absent(&self) -> Option<bool> {
        Some(self.0)
    }

    fn allowed(&self) -> String {
        "true or false".to_owned()
    }

    fn default_text(&self) -> String {
        self.0.to_string()
    }
}

/// A type with a fixed list of values that have names.
pub(crate) trait Named: Copy + PartialEq + 'static {
    /// Every value under its name.
    const ALL: &'static [(&'static str, Self)];
}

/// One of the names of `T`.
pub(crate) struct Choice<T>(pub(crate) Option<T>);

impl<T: Named> Rule for Choice<T> {
    type Value = T;

    fn read(&self, value: &DeValue<'_>) -> Result<T, String> {
        let DeValue::String(written) = value else {
            return Err(format!("must be {}, not {}", self.allowed(), kind(value)));
        };
        let found = T::ALL.iter().find(|(name, _)| *name == written.as_ref());
        found
            .map(|(_, value)| *value)
            .ok_or_else(|| format!("\"{}\" is not allowed: give {}", excerpt(written), self.allowed()))
    }

    fn absent(&self) -> Option<T> {
        self.0
    }

    fn allowed(&self) -> String {
        let names: Vec<String> = T::ALL.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        names.join(" or ")
    }

    fn default_text(&self) -> String {
        let found = T::ALL.iter().find(|(_, value)| Some(*value) == self.0);
        found.map_or_else(|| "required".to_owned(), |(name, _)| format!("\"{name}\""))
    }
}

/// A string that `parse` understands; `what` says what that is.
pub(crate) struct Text<T> {
    /// Reads the string, or says what is wrong with it.
    pub(crate) parse: fn(&str) -> Result<T, String>,
    /// What the string must be.
    pub(crate) what: &'static str,
}

impl<T> Rule for Text<T> {
    type Value = T;

    fn read(&self, value: &DeValue<'_>) -> Result<T, String> {
        match value {
            DeValue::String(written) => (self.parse)(written)
                .map_err(|why| format!("\"{}\" is not allowed: {why}; give {}", excerpt(written), self.what)),
            other => Err(format!("must be {}, not {}", self.what, kind(other))),
        }
    }

    fn absent(&self) -> Option<T> {
        None
    }

    fn allowed(&self) -> String {
        self.what.to_owned()
    }

    fn default_text(&self) -> String {
        "required".to_owned()
    }
}

/// A setting that may be left out.
pub(crate) struct Optional<R>(pub(crate) R);

impl<R: Rule> Rule for Optional<R> {
    type Value = Option<R::Value>;

    fn read(&self, value: &DeValue<'_>) -> Result<Self::Value, String> {
        self.0.read(value).map(Some)
    }

    fn absent(&self) -> Option<Self::Value> {
        Some(None)
    }

    fn allowed(&self) -> String {
        self.0.allowed()
    }

    fn default_text(&self) -> String {
        "none".to_owned()
    }
}

/// A list of 1 to `most` different values.
pub(crate) struct List<R> {
    /// Rule of one value.
    pub(crate) of: R,
    /// Most values.
    pub(crate) most: usize,
}

impl<R: Rule<Value: PartialEq>> Rule for List<R> {
    type Value = Vec<R::Value>;

    fn read(&self, value: &DeValue<'_>) -> Result<Self::Value, String> {
        let DeValue::Array(written) = value else {
            return Err(format!("must be {}, not {}", self.allowed(), kind(value)));
        };
        if written.is_empty() || written.len() > self.most {
            return Err(format!("has {} values: give {}", written.len(), self.allowed()));
        }
        let mut values = Vec::with_capacity(written.len());
        for (place, item) in written.iter().map(Spanned::get_ref).enumerate() {
            let value = self.of.read(item).map_err(|why| format!("value {}: {why}", place + 1))?;
            if values.contains(&value) {
                return Err(format!("value {} stands in the list twice: give each once", place + 1));
            }
            values.push(value);
        }
        Ok(values)
    }

    fn absent(&self) -> Option<Self::Value> {
        None
    }

    fn allowed(&self) -> String {
        format!("a list of 1 to {} different values, each {}", self.most, self.of.allowed())
    }

    fn default_text(&self) -> String {
        "required".to_owned()
    }
}

/// What kind of value this is, in words.
pub(crate) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The beginning of a foreign text, fit to be shown: printable and short.
pub(crate) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 60;
    let shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() { format!("{shown}…") } else { shown }
}
