//! Arguments of the benchmark programs: `--name value`, and `--name` alone for a switch.
//!
//! Each program asks for the names it knows and then calls [`Arguments::finish`], which refuses the rest: a mistyped
//! option must not give a figure for something else.

use std::collections::BTreeMap;
use std::str::FromStr;

/// The options given and not asked for yet.
pub struct Arguments(BTreeMap<String, Option<String>>);

impl Arguments {
    /// The options of this process.
    ///
    /// # Errors
    /// A sentence, where something is no option.
    pub fn of_process() -> Result<Self, String> {
        Self::parse(std::env::args().skip(1))
    }

    fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut words = words.peekable();
        let mut options = BTreeMap::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or_else(|| format!("`{word}` is no option"))?;
            let value = words.next_if(|next| !next.starts_with("--"));
            options.insert(name.to_owned(), value);
        }
        Ok(Self(options))
    }

    /// The value of `--name`; `None` where it was not given.
    ///
    /// # Errors
    /// A sentence, where it has no value or one of another kind.
    pub fn get<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, String> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(None) => Err(format!("--{name} needs a value")),
            Some(Some(value)) => value.parse().map(Some).map_err(|_| format!("--{name} cannot be `{value}`")),
        }
    }

    /// Whether `--name` was given.
    ///
    /// # Errors
    /// A sentence, where it has a value.
    pub fn switch(&mut self, name: &str) -> Result<bool, String> {
        match self.0.remove(name) {
            None => Ok(false),
            Some(None) => Ok(true),
            Some(Some(value)) => Err(format!("--{name} takes no value, and not `{value}`")),
        }
    }

    /// Refuses options that nobody asked for.
    ///
    /// # Errors
    /// A sentence with the first of them.
    pub fn finish(self) -> Result<(), String> {
        self.0.into_keys().next().map_or(Ok(()), |name| Err(format!("there is no --{name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_values_or_switches() {
        let mut given = arguments("--window 256 --busy-poll --seed 7").unwrap();
        assert_eq!(given.get("window"), Ok(Some(256)));
        assert_eq!(given.switch("busy-poll"), Ok(true));
        assert_eq!(given.get::<u64>("cpu"), Ok(None));
        assert!(given.finish().is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(arguments("window 256").is_err());
        assert!(arguments("--window").unwrap().get::<u64>("window").is_err());
        assert!(arguments("--window x").unwrap().get::<u64>("window").is_err());
        assert!(arguments("--busy-poll yes").unwrap().switch("busy-poll").is_err());
    }
}
