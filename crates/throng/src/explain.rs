//! `throng explain`: what a code means, and what to do about it.

use std::io::Write;

use serde_json::{Value, json};
use throng_server::codes::{self, Explanation};

use crate::args::ExplainArgs;
use crate::failure::Failure;
use crate::text::paragraph;

pub(crate) fn run(args: &ExplainArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let found = match args.code {
        Some(code) => codes::explain(code),
        None => codes::all(),
    };
    if found.is_empty() {
        let code = args.code.unwrap_or_default();
        return Err(Failure::found(format!(
            "{code} is no code that throng or a client of it uses. `throng explain` lists them all."
        )));
    }
    if args.json {
        let all: Vec<Value> = found.iter().map(as_json).collect();
        writeln!(out, "{}", Value::from(all))?;
    } else if args.code.is_none() {
        for one in &found {
            writeln!(out, "{:>5}  {} ({})", one.code, one.name, one.kind.describe())?;
        }
    } else {
        for (place, one) in found.iter().enumerate() {
            if place > 0 {
                writeln!(out)?;
            }
            writeln!(out, "{}", shown(one))?;
        }
    }
    Ok(())
}

fn shown(one: &Explanation) -> String {
    format!(
        "{} {} ({})\n\n{}\n\n  The client: {}.",
        one.code,
        one.name,
        one.kind.describe(),
        paragraph(one.text, "  "),
        one.then,
    )
}

fn as_json(one: &Explanation) -> Value {
    json!({
        "code": one.code,
        "kind": one.kind.describe(),
        "name": one.name,
        "client": one.then,
        "text": one.text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_a_heading_a_paragraph_and_what_the_client_does() {
        let text = shown(&codes::explain(3012)[0]);
        assert_eq!(
            text,
            "3012 no pong (disconnect)\n\n  \
             The client did not answer a ping within `client.pong_timeout` (8 s if not\n  \
             set). The device slept, the network vanished, or the page was frozen in the\n  \
             background. Normal for mobile clients; if everybody shows it, the machine is\n  \
             overloaded or a proxy buffers.\n\n  \
             The client: reconnects by itself."
        );
    }
}
