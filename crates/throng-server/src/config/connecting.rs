//! What becomes of a unidirectional client whose connect fails: closes and statuses of one's choice.

use super::backends::{field, of_json};
use super::read::{self, Reader};
use super::settings::Refusal;
use super::tree::Value;
use crate::codes::Disconnect;

/// `client.connect_code_to_unidirectional_disconnect`; empty where it is off.
pub(super) fn uni_disconnects(r: &mut Reader<'_>) -> Vec<(u32, Disconnect)> {
    let at = "client.connect_code_to_unidirectional_disconnect";
    let what = "each has a code, and to with a code from 3000 to 4999 and a reason of at most 123 \
                bytes: {code = 109, to = {code = 4501, reason = \"log in\"}}";
    let list = list(r, &format!("{at}.transforms"), what, |row| {
        let (from, to) = (number(row, "code")?, field(row, "to")?);
        let close = u16::try_from(number(to, "code")?).ok()?;
        let reason = text(to, "reason")?;
        let fits = (3000..=4999).contains(&close) && reason.len() <= Disconnect::REASON_BYTES_MAX;
        (from > 0 && fits).then(|| (from, Disconnect::custom(close, &reason)))
    });
    if r.bool(&format!("{at}.enabled")) { list } else { Vec::new() }
}

/// `connect_code_to_http_response` of a transport; none where it is off.
pub(super) fn refusals(r: &mut Reader<'_>, transport: &str) -> Option<Vec<Refusal>> {
    let at = format!("{transport}.connect_code_to_http_response");
    let what = "each has a code, and to with a status_code from 400 to 599 and perhaps a body: \
                {code = 3500, to = {status_code = 401, body = \"log in\"}}";
    let list = list(r, &format!("{at}.transforms"), what, |row| {
        let (code, to) = (number(row, "code")?, field(row, "to")?);
        let status = u16::try_from(number(to, "status_code")?).ok()?;
        let is_refusal = code > 0 && (400..=599).contains(&status);
        is_refusal.then_some(Refusal { code, status, body: text(to, "body")? })
    });
    r.bool(&format!("{at}.enabled")).then_some(list)
}

/// A list, which the environment writes as JSON.
fn list<T>(
    r: &mut Reader<'_>,
    path: &str,
    what: &str,
    row: impl Fn(&Value) -> Option<T>,
) -> Vec<T> {
    let value = r.written.given.get(path).map(|given| given.node.value.clone());
    let rows = match value.and_then(of_json) {
        None => return Vec::new(),
        Some(Value::List(rows)) => rows,
        Some(_) => return r.wrong(path, "not a list"),
    };
    let rows: Option<Vec<T>> = rows.iter().map(|node| row(&node.value)).collect();
    rows.unwrap_or_else(|| r.wrong(path, what))
}

fn number(row: &Value, name: &str) -> Option<u32> {
    u32::try_from(read::as_int(field(row, name)?)?).ok()
}

/// Empty where there is none.
fn text(row: &Value, name: &str) -> Option<String> {
    match field(row, name) {
        None => Some(String::new()),
        Some(Value::Text(text)) => Some(text.clone()),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Settings, Sources, load};
    use super::*;

    fn settings(env: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let loaded = load(Sources { env: env.collect(), dev: true, ..Sources::default() });
        let problems = loaded.problems.iter().map(ToString::to_string).collect();
        loaded.settings.ok_or(problems)
    }

    const CODES: &str = "CENTRIFUGO_CLIENT_CONNECT_CODE_TO_UNIDIRECTIONAL_DISCONNECT_TRANSFORMS";
    const ON: &str = "CENTRIFUGO_CLIENT_CONNECT_CODE_TO_UNIDIRECTIONAL_DISCONNECT_ENABLED";
    const STATUSES: &str = "CENTRIFUGO_UNI_SSE_CONNECT_CODE_TO_HTTP_RESPONSE_TRANSFORMS";

    #[test]
    fn they_count_where_they_are_switched_on() {
        let list = r#"[{"code": 109, "to": {"code": 4501, "reason": "log in"}}]"#;
        assert_eq!(settings(&[(CODES, list)]).unwrap().client.uni_disconnects, []);
        let client = settings(&[(CODES, list), (ON, "true")]).unwrap().client;
        assert_eq!(client.uni_disconnects, [(109, Disconnect::custom(4501, "log in"))]);
        let list = r#"[{"code": 3500, "to": {"status_code": 401}}]"#;
        assert_eq!(settings(&[(STATUSES, list)]).unwrap().uni_sse.refusals, None);
    }

    #[test]
    fn what_cannot_be_is_told() {
        for (name, list) in [
            (CODES, "{}"),
            (CODES, r#"[{"code": 109}]"#),
            (CODES, r#"[{"code": 0, "to": {"code": 4501}}]"#),
            (CODES, r#"[{"code": 109, "to": {"code": 200}}]"#),
            (STATUSES, r#"[{"code": 3500, "to": {"status_code": 200}}]"#),
            (STATUSES, r#"[{"code": 3500, "to": {"status_code": 401, "body": 7}}]"#),
        ] {
            let problems = settings(&[(name, list)]).unwrap_err();
            assert!(problems[0].contains(name), "{list}: {problems:?}");
        }
    }
}
