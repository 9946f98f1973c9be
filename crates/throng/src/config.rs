//! `throng config`: starts a configuration, checks one, prints the defaults.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use throng_server::config::{self, InitError, Loaded, Place, Problem, ProblemKind, Sources};

use crate::args::{CheckArgs, ImportArgs, InitArgs};
use crate::failure::Failure;
use crate::text::count;

/// Loads a configuration as the server would, with the environment of this process.
pub(crate) fn load(file: Option<&Path>) -> Loaded {
    config::load(Sources {
        file: file.map(Path::to_path_buf),
        env: environment(),
        ..Sources::default()
    })
}

/// Where Centrifugo looks for variables beside the environment, too.
const ENV_FILE: &str = ".env";

/// Variables that are text; others cannot be options. Those of a file `.env` in the working directory
/// come with them, where the environment itself does not have them.
pub(crate) fn environment() -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let file = std::fs::read_to_string(ENV_FILE).unwrap_or_default();
    for (name, value) in file.lines().filter_map(variable) {
        if !env.iter().any(|(known, _)| known == name) {
            env.push((name.to_owned(), value.to_owned()));
        }
    }
    env
}

/// A variable of the server's that a line of `.env` sets.
fn variable(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    if !name.starts_with("CENTRIFUGO_") && !name.starts_with("THRONG_") {
        return None;
    }
    let unquoted =
        ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    // Behind what is not quoted may stand a comment.
    Some((name, unquoted.unwrap_or_else(|| value.split(" #").next().unwrap_or_default().trim())))
}

/// What a command says that needs a configuration and got none it could use.
pub(crate) fn unusable(loaded: &Loaded) -> Failure {
    let lines: Vec<String> = loaded.problems.iter().map(Problem::to_string).collect();
    let problems = count(lines.len() as u64, "problem");
    Failure::could_not_run(format!("{}\n{problems} in the configuration", lines.join("\n")))
}

pub(crate) fn init(args: &InitArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let first = config::init(&args.origin).map_err(|error| match error {
        InitError::Origin(what) => Failure::could_not_run(what),
        InitError::Random(_) => Failure::could_not_run(error.to_string()),
    })?;
    let path = args.output.display();
    write_new(&args.output, &first.text)?;
    let file = match args.output.to_str() {
        // Found by itself in the working directory.
        Some("throng.toml") => String::new(),
        _ => format!(" -c {path}"),
    };
    writeln!(out, "{path} is written, with keys of its own; only you can read it.")?;
    writeln!(out, "Next:")?;
    writeln!(out, "  throng serve{file}")?;
    writeln!(out, "  throng subscribe news{file}    # in another terminal, a client")?;
    writeln!(out, "  throng publish news '{{\"text\":\"hello\"}}'{file}    # in a third")?;
    writeln!(out, "A token for your pages to connect with: throng token --user 42{file}")?;
    Ok(())
}

/// Writes a file that holds secrets and was not there.
fn write_new(file: &Path, text: &str) -> Result<(), Failure> {
    let path = file.display();
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        Failure::could_not_run(match error.kind() {
            ErrorKind::AlreadyExists => format!(
                "{path} is there already and is not overwritten; choose another name with -o, or \
                 move it away"
            ),
            _ => format!("cannot write {path}: {error}; choose another place with -o"),
        })
    })
}

pub(crate) fn import(args: &ImportArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let env = if args.env { environment() } else { Vec::new() };
    let imported =
        config::import(Sources { file: Some(args.file.clone()), env, ..Sources::default() });
    if imported.text.is_empty() {
        let lines: Vec<String> = imported.problems.iter().map(Problem::to_string).collect();
        return Err(Failure::could_not_run(lines.join("\n")));
    }
    let mut said = String::new();
    for problem in &imported.problems {
        said.push_str(&format!("problem: {problem}\n"));
    }
    for problem in &imported.missing {
        said.push_str(&format!("not supported: {problem}\n"));
    }
    for problem in imported.without_effect.iter().chain(&imported.unknown) {
        said.push_str(&format!("left out: {problem}\n"));
    }
    let taken = count(imported.taken as u64, "option");
    match &args.output {
        None => out.write_all(imported.text.as_bytes())?,
        Some(file) => write_new(file, &imported.text)?,
    }
    let where_to = args.output.as_ref().map_or_else(String::new, |file| {
        format!("; {} is written, only you can read it", file.display())
    });
    said.push_str(&format!("{taken} taken over{where_to}\n"));
    // The file may go to stdout, so what is said about it does not.
    std::io::stderr().write_all(said.as_bytes())?;
    if imported.missing.is_empty() && imported.problems.is_empty() {
        return Ok(());
    }
    Err(Failure::found(
        "what is not supported stands in the file as a comment: read those lines before you serve with it",
    ))
}

/// Prints every option as the variable that sets it.
pub(crate) fn default_env(out: &mut dyn Write) -> Result<(), Failure> {
    Ok(out.write_all(config::default_env().as_bytes())?)
}

pub(crate) fn schema(out: &mut dyn Write) -> Result<(), Failure> {
    Ok(writeln!(out, "{:#}", config::schema())?)
}

pub(crate) fn check(args: &CheckArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let loaded = load(args.config.as_deref());
    let unknown = loaded.warnings.iter().any(|warning| warning.kind == ProblemKind::Unknown);
    let good = loaded.problems.is_empty() && !unknown;
    if args.json {
        writeln!(out, "{}", as_json(&loaded, good))?;
    } else {
        write!(out, "{}", report(&loaded))?;
    }
    let unreadable = loaded.problems.iter().any(|p| p.kind == ProblemKind::Unreadable);
    match (good, unreadable) {
        (true, _) => Ok(()),
        (false, false) => Err(Failure::found("")),
        (false, true) => Err(Failure::could_not_run("")),
    }
}

pub(crate) fn default(out: &mut dyn Write) -> Result<(), Failure> {
    Ok(out.write_all(config::default_text().as_bytes())?)
}

/// Problems, warnings, and a sentence.
fn report(loaded: &Loaded) -> String {
    let mut text = String::new();
    for problem in &loaded.problems {
        text.push_str(&format!("problem: {problem}\n"));
    }
    for warning in &loaded.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    let name = match &loaded.file {
        Some(file) => file.display().to_string(),
        None => "the environment and the defaults (no file is there)".to_owned(),
    };
    let verdict = match (loaded.problems.len() as u64, loaded.warnings.len() as u64) {
        (0, 0) => "good".to_owned(),
        (0, warnings) => format!("a server would start; {}", count(warnings, "warning")),
        (problems, _) => format!("a server would not start; {}", count(problems, "problem")),
    };
    text.push_str(&format!("{name}: {verdict}\n"));
    text
}

fn as_json(loaded: &Loaded, good: bool) -> Value {
    let all = |problems: &[Problem]| problems.iter().map(problem_json).collect::<Vec<_>>();
    json!({
        "good": good,
        "file": loaded.file.as_ref().map(|file| file.display().to_string()),
        "problems": all(&loaded.problems),
        "warnings": all(&loaded.warnings),
    })
}

fn problem_json(problem: &Problem) -> Value {
    let (file, line): (Option<&PathBuf>, Option<usize>) = match &problem.place {
        Place::File(file, line) => (Some(file), Some(*line).filter(|line| *line > 0)),
        _ => (None, None),
    };
    json!({
        "path": problem.path,
        "file": file.map(|file| file.display().to_string()),
        "line": line,
        "value": problem.value,
        "what": problem.what,
        "text": problem.to_string(),
    })
}
