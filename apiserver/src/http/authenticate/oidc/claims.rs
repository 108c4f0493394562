//! From the claims of a verified token to a user.

use super::configuration::{ClaimRule, JwtIssuer, Mapping, Rule};
use crate::cel::value::List;
use crate::cel::{Budget, Program, Value as Cel};
use crate::http::authenticate::{CREDENTIAL_ID, User};
use crate::subresources::review::user_info;
use serde_json::{Map, Value};

/// As in Kubernetes.
const GROUPS_MAX: usize = 10_000;

pub(super) fn user(rules: &JwtIssuer, claims: &Map<String, Value>) -> Result<User, String> {
    let all = Value::Object(claims.clone());
    let mut reading = Reading { claims, all: &all, budget: Budget::new(Budget::PER_REQUEST) };
    for rule in &rules.claim_rules {
        reading.check_claim(rule)?;
    }
    let name = reading.username(&rules.username)?;
    let groups = match &rules.groups {
        Some(mapping) => reading.groups(mapping)?,
        None => vec![],
    };
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let mut user = User::new(&name, &groups);
    match &rules.uid {
        None => {}
        Some(Mapping::Claim { name, .. }) => user.uid = reading.text(name)?.to_owned(),
        Some(Mapping::Expression(program)) => user.uid = one(reading.strings(program, "uid")?, "uid")?,
    }
    for (key, program) in &rules.extra {
        let values = reading.strings(program, key)?;
        if !values.is_empty() {
            user.extra.insert(key.clone(), values);
        }
    }
    if let Some(id) = claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty()) {
        user.extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")]);
    }
    let mut told = user_info(&user);
    for field in ["uid", "extra"] {
        if told.get(field).is_none() {
            told[field] = if field == "uid" { "".into() } else { Value::Object(Map::new()) };
        }
    }
    for rule in &rules.user_rules {
        reading.check(rule, "user", &told)?;
    }
    Ok(user)
}

struct Reading<'a> {
    claims: &'a Map<String, Value>,
    all: &'a Value,
    budget: Budget,
}

impl Reading<'_> {
    fn check_claim(&mut self, rule: &ClaimRule) -> Result<(), String> {
        match rule {
            ClaimRule::Equals { name, value } => {
                let found = self.text(name).map_err(|_| format!("oidc: required claim {name} not present in ID token"))?;
                let why = || format!("oidc: required claim {name} value does not match. Got = {found}, want = {value}");
                if found == value { Ok(()) } else { Err(why()) }
            }
            ClaimRule::Holds(rule) => {
                let claims = self.all;
                self.check(rule, "claims", claims)
            }
        }
    }

    fn check(&mut self, rule: &Rule, variable: &str, value: &Value) -> Result<(), String> {
        let Rule { program, source, message } = rule;
        match program.test(&[(variable, Cel::of(value))], &mut self.budget) {
            Ok(true) => Ok(()),
            Ok(false) if message.is_empty() => Err(format!("oidc: validation expression '{source}' failed")),
            Ok(false) => Err(format!("oidc: validation expression '{source}' failed: {message}")),
            Err(error) => Err(format!("oidc: error evaluating validation expression '{source}': {error}")),
        }
    }

    fn text(&self, name: &str) -> Result<&str, String> {
        match self.claims.get(name) {
            None => Err(format!("oidc: claim not present: {name}")),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(format!("oidc: parse claim {name}: it is no string")),
        }
    }

    fn username(&mut self, mapping: &Mapping) -> Result<String, String> {
        match mapping {
            Mapping::Claim { name, prefix } => {
                let found = self.text(name).map_err(|why| format!("oidc: parse username claims {name:?}: {why}"))?;
                if name == "email" && self.claims.get("email_verified").is_some_and(|verified| *verified != true) {
                    return Err("oidc: email not verified".into());
                }
                match found {
                    "" => Err(format!("oidc: username claim {name:?} is empty")),
                    found => Ok(format!("{prefix}{found}")),
                }
            }
            Mapping::Expression(program) => one(self.strings(program, "username")?, "username"),
        }
    }

    fn groups(&mut self, mapping: &Mapping) -> Result<Vec<String>, String> {
        let (groups, prefix) = match mapping {
            Mapping::Expression(program) => (self.strings(program, "groups")?, ""),
            Mapping::Claim { name, prefix } => {
                let strange = || format!("oidc: parse groups claim {name:?}: it is neither a string nor a list of strings");
                let groups = match self.claims.get(name) {
                    None | Some(Value::Null) => vec![],
                    Some(Value::String(one)) => vec![one.clone()],
                    Some(Value::Array(list)) => {
                        let texts = list.iter().map(|one| one.as_str().map(str::to_owned));
                        texts.collect::<Option<_>>().ok_or_else(strange)?
                    }
                    Some(_) => return Err(strange()),
                };
                (groups, prefix.as_str())
            }
        };
        if groups.len() > GROUPS_MAX {
            return Err(format!("oidc: the token has {} groups, the limit is {GROUPS_MAX}", groups.len()));
        }
        Ok(groups.into_iter().map(|group| format!("{prefix}{group}")).collect())
    }

    /// What an expression makes of the claims: a string, a list of strings, or null. Empty strings are left out.
    fn strings(&mut self, program: &Program, what: &str) -> Result<Vec<String>, String> {
        let value = program.evaluate(&[("claims", Cel::of(self.all))], &mut self.budget);
        let value = value.map_err(|error| format!("oidc: error evaluating {what} claim expression: {error}"))?;
        let strange = || format!("oidc: {what} claim expression must return a string or a list of strings");
        let texts = match &value {
            Cel::Null => vec![],
            Cel::String(text) => vec![text.as_str().to_owned()],
            Cel::List(list) => {
                let list: &List<'_> = list;
                let texts = list.iter().map(|one| one.as_str().map(str::to_owned));
                texts.collect::<Option<_>>().ok_or_else(strange)?
            }
            _ => return Err(strange()),
        };
        Ok(texts.into_iter().filter(|text| !text.is_empty()).collect())
    }
}

fn one(mut texts: Vec<String>, what: &str) -> Result<String, String> {
    match (texts.pop(), texts.is_empty()) {
        (Some(text), true) => Ok(text),
        _ => Err(format!("oidc: {what} claim expression must return one string that is not empty")),
    }
}
