//! Settings of a server: the command line, and a TOML file with the same names, which it overrides.
//!
//! The file is turned into arguments that come before those of the command line, and of two equal
//! arguments the later one counts. So both share one list of names, one set of defaults and one
//! check of values. `members = "1=a:1,2=b:1"` may also be written as a table, and an array means
//! its elements separated by commas.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;

/// Reads the settings of this process. Answers `--help` and `--version`; a bad setting ends the
/// process with one line.
pub fn load<T: clap::Parser>() -> T {
    match parse::<T>(std::env::args_os().collect()) {
        Ok(settings) => settings,
        Err(Refused::Shown(shown)) => shown.exit(),
        Err(Refused::Bad(why)) => super::fail(&why),
    }
}

/// Why there are no settings.
#[derive(Debug)]
pub enum Refused {
    /// Help or version was asked for.
    Shown(clap::Error),
    /// Something is wrong.
    Bad(String),
}

/// Parses `arguments`, the first of which is the program's name.
///
/// # Errors
/// [`Refused`].
pub fn parse<T: clap::Parser>(arguments: Vec<OsString>) -> Result<T, Refused> {
    let command = T::command().args_override_self(true);
    let mut all = arguments;
    if let Some(path) = path_named(&all, "--config") {
        let names = command.get_arguments().filter_map(clap::Arg::get_long).collect::<BTreeSet<_>>();
        let from_file =
            read_file(&path, &names).map_err(|why| Refused::Bad(format!("{}: {why}", path.display())))?;
        all.splice(1..1, from_file);
    }
    let parsed = command.try_get_matches_from(all).and_then(|matches| T::from_arg_matches(&matches));
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Refused::Shown(error),
        _ => {
            let text = error.to_string();
            let first = text.split("\n\n").next().unwrap_or_default();
            Refused::Bad(super::one_line(first.trim_start_matches("error: ")))
        }
    })
}

/// The data directory that this process should check instead of serving: `--check` needs no other
/// setting.
pub fn check_asked() -> Option<PathBuf> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if !arguments.iter().skip(1).any(|argument| argument == "--check") {
        return None;
    }
    let path = path_named(&arguments, "--data-dir");
    Some(path.unwrap_or_else(|| super::fail(&"--check judges a data directory: name it with --data-dir")))
}

/// A path on the command line, found before the command line is parsed.
fn path_named(arguments: &[OsString], name: &str) -> Option<PathBuf> {
    let named = |position: usize| {
        let argument = arguments[position].to_str()?;
        match argument.strip_prefix(name)?.strip_prefix('=') {
            Some(path) => Some(PathBuf::from(path)),
            None => (argument == name).then(|| arguments.get(position + 1).map(PathBuf::from))?,
        }
    };
    (1..arguments.len()).rev().find_map(named)
}

fn read_file(path: &Path, names: &BTreeSet<&str>) -> Result<Vec<OsString>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let table = text.parse::<toml::Table>().map_err(|error| super::one_line(&error.to_string()))?;
    let mut arguments = Vec::new();
    for (name, value) in &table {
        if name == "config" || !names.contains(name.as_str()) {
            return Err(format!("unknown setting `{name}`"));
        }
        match value {
            toml::Value::Boolean(true) => arguments.push(format!("--{name}").into()),
            toml::Value::Boolean(false) => {}
            value => {
                let value =
                    argument(value).ok_or_else(|| format!("`{name}`: not a value this setting can have"))?;
                arguments.push(format!("--{name}={value}").into());
            }
        }
    }
    Ok(arguments)
}

/// A value as it would be written on the command line.
fn argument(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Array(values) => {
            values.iter().map(argument).collect::<Option<Vec<_>>>().map(|values| values.join(","))
        }
        toml::Value::Table(table) => {
            let pair = |(key, value): (&String, &toml::Value)| Some(format!("{key}={}", argument(value)?));
            table.iter().map(pair).collect::<Option<Vec<_>>>().map(|pairs| pairs.join(","))
        }
        _ => None,
    }
}
