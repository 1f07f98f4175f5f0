//! Reading JSON settings, with errors that name the setting.

use serde_json::{Map, Value};

use super::geometry::Size;
use super::{Normalization, Preprocessing};

/// Longest side of a tensor. The largest published image towers take 1,024.
const MAX_OUTPUT_SIDE: u64 = 4096;

/// Why preprocessing settings were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The file is not a JSON object.
    #[error("the preprocessing settings are not an object")]
    NotAnObject,
    /// A setting that is needed is not there.
    #[error("preprocessing setting \"{key}\" is missing")]
    Missing {
        /// Name of the setting.
        key: String,
    },
    /// A setting has a value that makes no sense.
    #[error("preprocessing setting \"{key}\" is {value}, but should be {expected}")]
    Invalid {
        /// Name of the setting.
        key: String,
        /// Its value as JSON, cut after 100 characters.
        value: String,
        /// What it should be, as a noun phrase.
        expected: &'static str,
    },
    /// A setting, or a value of it, that changes pixels in a way that is not implemented.
    #[error("preprocessing setting \"{key}\" with the value {value} is not supported")]
    Unsupported {
        /// Name of the setting.
        key: String,
        /// Its value as JSON, cut after 100 characters.
        value: String,
    },
}

/// A JSON object whose settings are asked for by name. Null counts as absent.
#[derive(Clone, Copy)]
pub(super) struct Settings<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Settings<'a> {
    pub(super) fn new(value: &'a Value) -> Result<Self, SettingsError> {
        value.as_object().map(Self).ok_or(SettingsError::NotAnObject)
    }

    pub(super) fn get(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn str(self, key: &str) -> Result<Option<&'a str>, SettingsError> {
        self.read(key, "a string", Value::as_str)
    }

    pub(super) fn bool(self, key: &str) -> Result<Option<bool>, SettingsError> {
        self.read(key, "true or false", Value::as_bool)
    }

    pub(super) fn number(self, key: &str) -> Result<Option<f64>, SettingsError> {
        self.read(key, "a number", |value| value.as_f64().filter(|number| number.is_finite()))
    }

    /// Three numbers, or one for all three channels.
    pub(super) fn channels(self, key: &str) -> Result<Option<[f64; 3]>, SettingsError> {
        self.read(key, "one number or three", |value| {
            if let Some(number) = value.as_f64() {
                return Some([number; 3]);
            }
            let numbers: Vec<f64> = value.as_array()?.iter().map(Value::as_f64).collect::<Option<_>>()?;
            numbers.try_into().ok()
        })
    }

    /// A value that `parse` understands, or the error that says what was expected.
    pub(super) fn read<T>(
        self,
        key: &str,
        expected: &'static str,
        parse: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, SettingsError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        parse(value).map(Some).ok_or_else(|| invalid(key, value, expected))
    }
}

pub(super) fn invalid(key: &str, value: &Value, expected: &'static str) -> SettingsError {
    SettingsError::Invalid { key: key.to_owned(), value: shown(value), expected }
}

pub(super) fn unsupported(key: &str, value: &Value) -> SettingsError {
    SettingsError::Unsupported { key: key.to_owned(), value: shown(value) }
}

pub(super) fn missing(key: &str) -> SettingsError {
    SettingsError::Missing { key: key.to_owned() }
}

fn shown(value: &Value) -> String {
    value.to_string().chars().take(100).collect()
}

/// A side in pixels.
pub(super) fn side(value: &Value) -> Option<u32> {
    let side = value.as_u64().filter(|side| (1..=MAX_OUTPUT_SIDE).contains(side))?;
    u32::try_from(side).ok()
}

/// `[height, width]`.
pub(super) fn pair(value: &Value) -> Option<Size> {
    let [height, width] = value.as_array()?.as_slice() else {
        return None;
    };
    Some(Size { height: side(height)?, width: side(width)? })
}

impl Preprocessing {
    /// Refuses numbers that cannot make a sensible tensor. Settings that a person wrote pass
    /// through here as well as those read from a model.
    ///
    /// # Errors
    /// [`SettingsError::Invalid`] names the field.
    pub fn validate(self) -> Result<Self, SettingsError> {
        let Normalization { scale, offset, mean, std } = self.normalization;
        let refuse = |key: &str, value: &dyn std::fmt::Debug, expected| {
            Err(SettingsError::Invalid { key: key.to_owned(), value: format!("{value:?}"), expected })
        };
        let sides = |size: Size| {
            u64::from(size.height.max(size.width)) <= MAX_OUTPUT_SIDE && size.height.min(size.width) > 0
        };
        let resize = match self.resize {
            super::Resize::Keep => true,
            super::Resize::ShortestEdge(edge) => sides(Size::square(edge)),
            super::Resize::Exact(size) | super::Resize::Cover(size) | super::Resize::Fit(size) => sides(size),
        };
        if !resize {
            return refuse("resize", &self.resize, "sides between 1 and 4096");
        }
        if !sides(self.crop.size) {
            return refuse("crop", &self.crop.size, "sides between 1 and 4096");
        }
        if !std.iter().all(|&std| std.is_finite() && std as f32 != 0.0) {
            return refuse("std", &std, "numbers other than zero");
        }
        if ![scale, offset, mean[0], mean[1], mean[2]].iter().all(|number| number.is_finite()) {
            return refuse("normalization", &self.normalization, "finite numbers");
        }
        Ok(self)
    }
}
