//! Label selectors, as strings (`app=web,tier in (a,b)`) and as `LabelSelector` objects.

use crate::meta::LabelSelector;
use crate::name;
use std::collections::BTreeMap;
use std::fmt;

pub type Labels = BTreeMap<String, String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    Equals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One clause of a selector; all must hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted and without doubles.
    pub values: Vec<String>,
}

/// Selects objects by their labels. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    nothing: bool,
    requirements: Vec<Requirement>,
}

/// What is wrong with a selector, as Kubernetes words it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl Operator {
    /// As `matchExpressions` of label selectors and node selectors name it.
    pub fn from_expression(name: &str) -> Option<Operator> {
        Some(match name {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::GreaterThan,
            "Lt" => Operator::LessThan,
            _ => return None,
        })
    }
}

impl Requirement {
    pub fn new(key: &str, operator: Operator, values: impl IntoIterator<Item = String>) -> Result<Requirement, Error> {
        let mut values: Vec<String> = values.into_iter().collect();
        values.sort();
        values.dedup();
        let mut wrong = vec![];
        wrong.extend(invalid_key(key));
        let shown = || format!("[{}]", values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(","));
        let count = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => Some("for 'in', 'notin' operators, values set can't be empty"),
            Operator::Equals | Operator::NotEquals if values.len() != 1 => {
                Some("exact-match compatibility requires one single value")
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => None,
        };
        wrong.extend(count.map(|why| format!("values: Invalid value: {}: {why}", shown())));
        for (index, value) in values.iter().enumerate() {
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err() {
                let why = "for 'Gt', 'Lt' operators, the value must be an integer";
                wrong.push(format!("values[{index}]: Invalid value: {value:?}: {why}"));
            }
            let errors = name::label_value(value);
            if !errors.is_empty() {
                wrong.push(format!("values[{index}][{key}]: Invalid value: {value:?}: {}", errors.join("; ")));
            }
        }
        match &wrong[..] {
            [] => Ok(Requirement { key: key.to_owned(), operator, values }),
            [one] => Err(Error(one.clone())),
            many => Err(Error(format!("[{}]", many.join(", ")))),
        }
    }

    pub fn matches<'a>(&self, labels: impl Into<Option<&'a Labels>>) -> bool {
        self.holds_for(labels.into().and_then(|labels| labels.get(&self.key)).map(String::as_str))
    }

    /// Whether the clause holds of a label with this value (or of one that isn't there).
    pub fn holds_for(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|one| one == value);
        let compares = |test: fn(&i64, &i64) -> bool| match (value.map(str::parse), self.values.first().map(|one| one.parse())) {
            (Some(Ok(value)), Some(Ok(bound))) => test(&value, &bound),
            _ => false,
        };
        match self.operator {
            Operator::Equals | Operator::In => value.is_some_and(listed),
            Operator::NotEquals | Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => compares(i64::gt),
            Operator::LessThan => compares(i64::lt),
        }
    }
}

fn invalid_key(key: &str) -> Option<String> {
    let errors = name::qualified_name(key);
    (!errors.is_empty()).then(|| format!("<nil>: Invalid value: {key:?}: {}", errors.join("; ")))
}

impl Selector {
    pub fn everything() -> Selector {
        Selector::default()
    }

    pub fn nothing() -> Selector {
        Selector { nothing: true, requirements: vec![] }
    }

    /// The `labelSelector` of a request. The empty string selects everything.
    pub fn parse(text: &str) -> Result<Selector, Error> {
        Parser { lexer: Lexer { rest: text }, ahead: None }.selector()
    }

    /// Exact matches, as in a Service's `selector` or a `nodeSelector`.
    pub fn from_labels(labels: &Labels) -> Selector {
        let equal = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.clone()],
        };
        Selector { nothing: false, requirements: labels.iter().map(equal).collect() }
    }

    /// The empty object selects everything.
    pub fn from_label_selector(selector: &LabelSelector) -> Result<Selector, Error> {
        let mut requirements = vec![];
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key, Operator::Equals, [value.clone()])?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match Operator::from_expression(&expression.operator) {
                Some(Operator::GreaterThan | Operator::LessThan) | None => {
                    return Err(Error(format!("{:?} is not a valid label selector operator", expression.operator)));
                }
                Some(operator) => operator,
            };
            requirements.push(Requirement::new(&expression.key, operator, expression.values.iter().flatten().cloned())?);
        }
        requirements.sort();
        Ok(Selector { nothing: false, requirements })
    }

    /// A selector that may be left out: none selects nothing.
    pub fn from_optional(selector: Option<&LabelSelector>) -> Selector {
        selector.map_or_else(Selector::nothing, Selector::from)
    }

    pub fn matches<'a>(&self, labels: impl Into<Option<&'a Labels>>) -> bool {
        let labels = labels.into();
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Adds one more clause.
    pub fn require(&mut self, requirement: Requirement) {
        self.requirements.push(requirement);
        self.requirements.sort();
    }

    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    pub fn is_nothing(&self) -> bool {
        self.nothing
    }
}

/// For stored objects, whose selectors were validated: one that is invalid all the same selects nothing.
impl From<&LabelSelector> for Selector {
    fn from(selector: &LabelSelector) -> Selector {
        Selector::from_label_selector(selector).unwrap_or_else(|_| Selector::nothing())
    }
}

impl std::str::FromStr for Selector {
    type Err = Error;
    fn from_str(text: &str) -> Result<Selector, Error> {
        Selector::parse(text)
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Requirement { key, operator, values } = self;
        let values = values.join(",");
        match operator {
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clauses: Vec<String> = self.requirements.iter().map(Requirement::to_string).collect();
        f.write_str(&clauses.join(","))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'a> {
    End,
    Word(&'a str),
    /// One of `= == != ! ( ) , < >`.
    Symbol(&'static str),
    Unknown(&'a str),
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Token::End => "",
            Token::Word(text) | Token::Symbol(text) | Token::Unknown(text) => text,
        }
    }
}

struct Lexer<'a> {
    rest: &'a str,
}

const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", "<", ">"];

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Token<'a> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        if self.rest.is_empty() || self.rest.starts_with('\0') {
            return Token::End;
        }
        if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| self.rest.starts_with(symbol)) {
            self.rest = &self.rest[symbol.len()..];
            return Token::Symbol(symbol);
        }
        let end = self.rest.find([' ', '\t', '\r', '\n', '=', '!', '(', ')', ',', '<', '>', '\0']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        if word.is_empty() { Token::Unknown(rest) } else { Token::Word(word) }
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    ahead: Option<Token<'a>>,
}

fn expected<T>(found: Token<'_>, what: &str) -> Result<T, Error> {
    Err(Error(format!("found '{}', expected: {what}", found.text())))
}

impl<'a> Parser<'a> {
    fn peek(&mut self) -> Token<'a> {
        *self.ahead.get_or_insert_with(|| self.lexer.next())
    }

    fn next(&mut self) -> Token<'a> {
        self.ahead.take().unwrap_or_else(|| self.lexer.next())
    }

    fn selector(mut self) -> Result<Selector, Error> {
        let mut requirements = vec![];
        loop {
            match self.peek() {
                Token::Word(_) | Token::Symbol("!") => {
                    let requirement =
                        self.requirement().map_err(|error| Error(format!("unable to parse requirement: {error}")))?;
                    requirements.push(requirement);
                    match self.next() {
                        Token::End => break,
                        Token::Symbol(",") => match self.peek() {
                            Token::Word(_) | Token::Symbol("!") => {}
                            found => return expected(found, "identifier after ','"),
                        },
                        found => return expected(found, "',' or 'end of string'"),
                    }
                }
                Token::End => break,
                found => return expected(found, "!, identifier, or 'end of string'"),
            }
        }
        requirements.sort();
        Ok(Selector { nothing: false, requirements })
    }

    fn requirement(&mut self) -> Result<Requirement, Error> {
        let absent = self.peek() == Token::Symbol("!");
        if absent {
            self.next();
        }
        let key = match self.next() {
            Token::Word(key) => key,
            found => return expected(found, "identifier"),
        };
        if let Some(error) = invalid_key(key) {
            return Err(Error(error));
        }
        if absent {
            return Requirement::new(key, Operator::DoesNotExist, []);
        }
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Requirement::new(key, Operator::Exists, []);
        }
        let operator = match self.next() {
            Token::Word("in") => Operator::In,
            Token::Word("notin") => Operator::NotIn,
            Token::Symbol("=" | "==") => Operator::Equals,
            Token::Symbol("!=") => Operator::NotEquals,
            Token::Symbol(">") => Operator::GreaterThan,
            Token::Symbol("<") => Operator::LessThan,
            found => return expected(found, "in, notin, =, ==, !=, gt, lt"),
        };
        match operator {
            Operator::In | Operator::NotIn => Requirement::new(key, operator, self.list()?),
            _ => Requirement::new(key, operator, [self.value()?]),
        }
    }

    fn value(&mut self) -> Result<String, Error> {
        match self.peek() {
            Token::End | Token::Symbol(",") => Ok(String::new()),
            Token::Word(word) => {
                self.next();
                Ok(word.to_owned())
            }
            found => expected(found, "identifier"),
        }
    }

    /// `(a,b)`. An item may be empty: `(a,)` has two.
    fn list(&mut self) -> Result<Vec<String>, Error> {
        match self.next() {
            Token::Symbol("(") => {}
            // Kubernetes' message has no comma here.
            found => return Err(Error(format!("found '{}' expected: '('", found.text()))),
        }
        let mut values = vec![];
        match self.peek() {
            Token::Symbol(")") => {
                self.next();
                return Ok(values);
            }
            Token::Word(_) | Token::Symbol(",") => {}
            found => return expected(found, "',', ')' or identifier"),
        }
        loop {
            match self.peek() {
                Token::Word(word) => {
                    self.next();
                    values.push(word.to_owned());
                }
                Token::Symbol("," | ")") => values.push(String::new()),
                found => return expected(found, "',', or identifier"),
            }
            match self.next() {
                Token::Symbol(",") => {}
                Token::Symbol(")") => return Ok(values),
                found => return expected(found, "',' or ')'"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::LabelSelectorRequirement;
    use proptest::prelude::*;

    fn labels(text: &str) -> Labels {
        let pairs = text.split(',').filter(|pair| !pair.is_empty()).filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn matches_as_kubernetes_does() {
        for (selector, yes, no) in [
            ("", "", ""),
            ("app=web", "app=web,x=y", "app=db"),
            ("app==web", "app=web", ""),
            ("app!=web", "", "app=web"),
            ("app in (web, db)", "app=db", "app=mail"),
            ("app notin (web,db)", "", "app=db"),
            ("app", "app=", "x=y"),
            ("!app", "x=y", "app="),
            ("n>3", "n=4", "n=3"),
            ("n<3", "n=2", "n=x"),
            ("a=b,c", "a=b,c=d", "a=b"),
            ("app=", "app=", "app=web"),
            ("app=,c", "app=,c=d", "c=d"),
            ("app in (,a)", "app=", "app=b"),
            ("in in (in)", "in=in", "in=notin"),
            (" a = b , ! c ", "a=b", "a=b,c=d"),
        ] {
            let parsed = Selector::parse(selector).unwrap();
            assert!(parsed.matches(&labels(yes)), "{selector} on {yes}");
            assert!(selector.is_empty() || !parsed.matches(&labels(no)), "{selector} on {no}");
        }
        assert!(Selector::parse("!a").unwrap().matches(None));
    }

    #[test]
    fn says_what_is_wrong() {
        for (selector, error) in [
            (",", "found ',', expected: !, identifier, or 'end of string'"),
            ("a,", "found '', expected: identifier after ','"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("!a=b", "found '=', expected: ',' or 'end of string'"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("!=a", "found '!=', expected: !, identifier, or 'end of string'"),
            ("a=(", "unable to parse requirement: found '(', expected: identifier"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("a in (=", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
            (
                "a in ()",
                "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
            ),
            (
                "a>b",
                "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            assert_eq!(Selector::parse(selector).unwrap_err().to_string(), error, "{selector}");
        }
        let key = Selector::parse("a@b=c").unwrap_err().to_string();
        assert!(
            key.starts_with("unable to parse requirement: <nil>: Invalid value: \"a@b\": name part must consist of"),
            "{key}"
        );
        let value = Selector::parse("a=b@").unwrap_err().to_string();
        assert!(
            value.starts_with("unable to parse requirement: values[0][a]: Invalid value: \"b@\": a valid label must be"),
            "{value}"
        );
    }

    #[test]
    fn reads_label_selectors() {
        let expression = |operator: &str, values: &[&str]| LabelSelectorRequirement {
            key: "tier".into(),
            operator: operator.into(),
            values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
        };
        let selector =
            LabelSelector { match_labels: Some(labels("app=web")), match_expressions: Some(vec![expression("In", &["b", "a"])]) };
        assert_eq!(Selector::from(&selector).to_string(), "app=web,tier in (a,b)");
        let wrong = LabelSelector { match_expressions: Some(vec![expression("Gt", &["1"])]), ..LabelSelector::default() };
        assert_eq!(
            Selector::from_label_selector(&wrong).unwrap_err().to_string(),
            "\"Gt\" is not a valid label selector operator"
        );
        assert!(!Selector::from(&wrong).matches(&labels("")));
        assert!(Selector::from(&LabelSelector::default()).is_everything());
        assert!(Selector::from_optional(None).is_nothing());
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") { let _ = Selector::parse(&text); }

        #[test]
        fn never_panics_on_likely_text(text in "[ab!=,()<> in\\x00é]*") { let _ = Selector::parse(&text); }

        #[test]
        fn prints_what_it_parses(text in "[!]?[a-c]( in \\([a-c](,[a-c])?\\)|=[a-c]?|!=[a-c]|>[0-9])?(,[a-c]( notin \\(,[a-c]\\))?)?") {
            if let Ok(selector) = Selector::parse(&text) {
                prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
            }
        }
    }
}
